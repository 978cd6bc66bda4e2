"""From a pre-trained or a new network and labelled clips to a network trained on them."""
