"""The paper's comparison (figure 1, tables 1 and 3) on anyone's data: same backbone, head, budget, seeds throughout."""
