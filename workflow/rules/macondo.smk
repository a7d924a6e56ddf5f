# Towns of Macondo, and the models that learn them. No rules.


def town_of(wildcards):
    """Return the settings of a town of Macondo."""
    return config["macondo"]["towns"][wildcards.town]


def tokenizer_of_macondo(wildcards):
    """Return the folder of the baseline's tokenizer, if the names of children depend on it."""
    return tokenizer_of_town(town_of(wildcards))


def tokenizer_of_conversations(wildcards):
    """Return the folder of the baseline's tokenizer, if the names of Macondo-Conv depend on it."""
    return tokenizer_of_town(config["macondo_conv"])


def tokenizer_of_town(town):
    """Return the folder of the baseline's tokenizer if children have names that are its tokens."""
    if town["child_names"] == "existing" and town["tokenizer"] is None:
        return [f"{RESULTS}/tokenizers/{BASE_TOKENIZER}"]
    return []


def fine_tuning_of(wildcards):
    """Return the settings of a fine-tuning on Macondo."""
    return config["fine_tunings"][wildcards.fine_tuning]


def town_to_fine_tune(wildcards):
    """Return the folder of the town whose sentences a model is fine-tuned on."""
    return f"{RESULTS}/macondo/{fine_tuning_of(wildcards)['town']}/seed{wildcards.seed}"


def shape_to_fine_tune(wildcards):
    """Return the shape of random weights: the settings of a model, or the name of one."""
    shape = fine_tuning_of(wildcards)["shape"]
    return config["models"].get(shape, shape)


def model_to_fine_tune(wildcards):
    """Return the folder of the LM from which a fine-tuning starts, if it is one of `models`.

    Experiment seeds take the LM seeds in turn, so that no verdict hangs on one trained LM.
    """
    init = fine_tuning_of(wildcards)["init"]
    if init not in config["models"]:
        return []
    turn = config["experiment_seeds"].index(int(wildcards.seed)) % len(config["lm_seeds"])
    return f"{RESULTS}/models/{init}/seed{config['lm_seeds'][turn]}"


def tokenizer_to_fine_tune(wildcards):
    """Return the folder of the tokenizer of the model that is fine-tuned, if `models` has it."""
    fine_tuning = fine_tuning_of(wildcards)
    for name in (fine_tuning["init"], fine_tuning["shape"]):
        if name in config["models"]:
            return f"{RESULTS}/tokenizers/{config['models'][name]['tokenizer']}"
    return []
