"""What may run where, and how good a placement is: arrays, rules, scores."""
