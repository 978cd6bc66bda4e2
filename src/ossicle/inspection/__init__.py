"""A look inside a trained network or separator: filters, bases, layers, latents, as pictures.

* `filters`, `spectra`, `weights`, `bases`: what weights say by themselves.
* `layer_cka`, `embeddings`, `latents`: what clips and mixtures add.
* `convolutions`: which kernels a network has and what a step of each is in Hz and seconds.
* `network`, `clips`, `separators` (`decoders`, `speakers`): exhibits of one kind of thing each.
* `exhibit`, `pictures`, `drawings`: a picture with its words and its numbers.
* `folder`: everything written, with its page.
"""
