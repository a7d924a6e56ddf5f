# What LMs start and learn from beside their text: other LMs, and p_kNN of a datastore. No rules.


def start_of_model(wildcards):
    """Return the model whose weights a training starts from; none if they are random."""
    start = config["models"][wildcards.model].get("starts_from")
    return f"{RESULTS}/models/{start}/seed{wildcards.seed}" if start else []


def objective_of_model(wildcards):
    """Return the settings of a training that minimizes something else than the nll of its text."""
    return config["models"][wildcards.model]["training"].get("objective")


def teacher_of_model(wildcards):
    """Return the folder of the LM that a model learns from, if it has one."""
    objective = objective_of_model(wildcards)
    return f"{RESULTS}/models/{objective['teacher']}/seed{wildcards.seed}" if objective else []


def distributions_of_model(wildcards):
    """Return the folder of p_kNN of the train split, if a model is trained with a datastore."""
    objective = objective_of_model(wildcards)
    if objective is None or objective["datastore"] is None:
        return []
    return f"{RESULTS}/train_distributions/{objective['datastore']}/seed{wildcards.seed}"


def windows_that_ask(wildcards):
    """Return context and number of the training windows that need p_kNN of a datastore."""
    found = set()
    for model in config["models"].values():
        objective = model.get("training", {}).get("objective")
        if objective and objective["datastore"] == wildcards.datastore:
            found.add((model["context"], model["training"]["tokens"] // model["context"]))
    return sorted(found)
