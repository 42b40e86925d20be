"""One job on several GPUs of one machine, one process (rank) a GPU.

Rank 0 leads: it runs the job as one process would, reads and writes every file, and hands the network's and the VAE's work to a
`Team`. The other ranks `follow`: they wait for a call, do their share of it, and wait again. Nothing here is known to `model/`.

    ranks      the process group, and handing values around
    sequence   the transformer over a share of the tokens (Ulysses, arXiv 2309.14509)
    strips     the VAE over a strip of every frame
    shard      weights spread over the ranks (FSDP2)
    team       what is asked of the ranks, and by whom
    supervise  starting ranks, watching them, ending them together
"""
