from opsd_lab.objectives import of_the_step


@of_the_step
def uncertain_tokens(columns):
    entropy = columns["student_entropy"]
    return (entropy >= entropy.quantile(0.8)).float()
