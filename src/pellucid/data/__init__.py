"""Text → token shards → batches. Only `loader` imports torch.

sources/     where text comes from: files of many kinds, folders, the hub, the built-in corpus → documents in blocks
prepare      source × tokenizer → a prepared directory: shards and a manifest
  encoding   a block of documents → ids, in any process;  workers: many of them at once
  assembly   encoded blocks in order → shards, with a journal to go on from;  progress: how far it is
  scale_out  the same on many machines, by datatrove;  parts: the files that cross between them
stream       the same shards made on demand, within a budget of disk
cache        a data path (raw text or a prepared directory) → a prepared directory, or a stream
manifest     what a prepared directory holds and what it was made from;  inspection: in numbers and documents
shards       the files themselves: writer and memory-mapped reader
order        training step → windows, a pure function of (seed, epoch, step, rank);  mixture: of several orders
packing      documents → rows in which they are whole and do not see each other
batch        windows → arrays;  evaluation: a split's windows in reading order
objectives/  what is learned: causal, prefix, span corruption, paired source and target
loader       arrays → tensors on a device, read ahead by a thread
"""
