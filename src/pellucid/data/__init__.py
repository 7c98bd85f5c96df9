"""Text → token shards → batches. Only `loader` imports torch.

sources/     where text comes from: files of many kinds, folders, the hub, the built-in corpus → documents in blocks
prepare      source × tokenizer → a prepared directory: shards and a manifest
cache        a data path (raw text or a prepared directory) → a prepared directory
manifest     what a prepared directory holds and what it was made from
shards       the files themselves: writer and memory-mapped reader
order        training step → windows, a pure function of (seed, epoch, step, rank)
batch        windows → arrays;  evaluation: a split's windows in reading order
objectives/  what is learned: causal, prefix, span corruption, paired source and target
loader       arrays → tensors on a device, read ahead by a thread
"""
