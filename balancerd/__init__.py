"""balancerd: an autonomous balancing daemon for libvirt/KVM sites."""
