"""What operators want: policies, rules, ladders of impatience, and the tags of VMs."""
