"""Random changes of labelled images, the same ones for the same (seed, epoch, index).

To add one: a function (sample, config, chances) -> sample in the module of its kind (`geometric`, `photometric`; in
`compositing` also with the partners it draws), its settings in `config`, and a line in the table of `augment`.
"""
