# Small functions for the towns of Macondo and the models that learn them. No rules.


def town_of(wildcards):
    """Return the settings of a town of Macondo."""
    return config["macondo"]["towns"][wildcards.town]


def tokenizer_of_macondo(wildcards):
    """Return the folder of the corpus's tokenizer, if the names of children depend on it."""
    return tokenizer_of_town(town_of(wildcards))


def tokenizer_of_conversations(wildcards):
    """Return the folder of the corpus's tokenizer, if the names of Macondo-Conv depend on it."""
    return tokenizer_of_town(config["macondo_conv"])


def tokenizer_of_town(town):
    """Return the folder of the corpus's tokenizer if children have names that are tokens of it."""
    if town["child_names"] == "existing" and town["tokenizer"] is None:
        return [f"results/{config['run']}/corpora/{config['corpus']}/tokenizer"]
    return []


def fine_tuning_of(wildcards):
    """Return the settings of a fine-tuning on Macondo."""
    return config["overspecification"]["fine_tunings"][wildcards.fine_tuning]


def town_to_fine_tune(wildcards):
    """Return the folder of the town whose sentences a model is fine-tuned on."""
    town = fine_tuning_of(wildcards)["town"]
    return f"results/{config['run']}/macondo/{town}/seed{wildcards.seed}"


def shape_to_fine_tune(wildcards):
    """Return the shape of random weights: the settings of a model, or the name of one."""
    shape = fine_tuning_of(wildcards)["shape"]
    return config["models"].get(shape, shape)


def model_to_fine_tune(wildcards):
    """Return the folder of the trained LM from which a fine-tuning starts, if it is ours."""
    init = fine_tuning_of(wildcards)["init"]
    if init not in config["models"]:
        return []
    return f"results/{config['run']}/models/{init}/seed{config['lm_seeds'][0]}"


def tokenizer_to_fine_tune(wildcards):
    """Return the folder of the corpus's tokenizer, if the model that is fine-tuned uses it."""
    fine_tuning = fine_tuning_of(wildcards)
    if not {fine_tuning["init"], fine_tuning["shape"]} & set(config["models"]):
        return []
    return f"results/{config['run']}/corpora/{config['corpus']}/tokenizer"
