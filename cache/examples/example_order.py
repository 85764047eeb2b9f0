"""The order of examples: a pure function of the seed, so a run resumes from one integer and all ranks agree.

The stream of examples is one epoch after another, and each epoch shows every example once:

    examples in the order of the store, cut into blocks of neighbours
      -> the blocks are shuffled
      -> consecutive blocks form a window, and the examples of a window are shuffled

A reader that keeps the examples of one window decodes each block once, all of it together. Any position is computed
alone, whatever the number of examples: nothing is sorted, and nothing is remembered.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.examples.permutation import permute, splitmix64

# Tokens of a block: with two chunks of a part (cache.parts.layout), reading is nearly as fast as it is in sequence.
BLOCK_TOKENS = 1024
# Tokens of a window for each example of a batch, and the smallest batch that counts. So a window has at least four
# blocks for each example of a batch: for one example in four, the batch has another one of the same block.
WINDOW_TOKENS, SMALLEST_BATCH = 4 * BLOCK_TOKENS, 256
# Numbers that are hashed with an epoch. No window has so high a number.
BLOCKS_OF_EPOCH, START_OF_EPOCH = 1 << 63, (1 << 63) + 1


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How far examples are shuffled. block: neighbours that stay together in a window. window: number of its blocks.

    With blocks of one example, or a window that has all examples, every order of an epoch is equally likely.
    """

    block: int = 1
    window: int = 1

    @classmethod
    def of(cls, tokens: npt.NDArray[np.integer], window_tokens: int) -> "Shuffle":
        """Blocks of about BLOCK_TOKENS tokens in windows of `window_tokens`. tokens: of each example, at least one."""
        total = max(1, int(tokens.sum(dtype=np.int64)))
        block = (2 * BLOCK_TOKENS * len(tokens) + total) // (2 * total)
        return cls(max(1, block), max(1, window_tokens // BLOCK_TOKENS))

    def window_end(self, position: int, n: int) -> int:
        """First position after the window of a position in the endless stream over n examples."""
        epoch, place = divmod(position, n)
        windows = _Windows.of(self, n)
        last_block = (int(windows.number(np.array([place // windows.block]))[0]) + 1) * windows.blocks // windows.count
        return epoch * n + min(last_block * windows.block, n)


# Every order of an epoch is equally likely.
FULL = Shuffle()


def default_window(batch_size: int) -> int:
    """Tokens of a window for batches of so many examples."""
    return WINDOW_TOKENS * max(batch_size, SMALLEST_BATCH)


def examples_at(start: int, count: int, n: int, seed: int, shuffle: Shuffle = FULL) -> npt.NDArray[np.int64]:
    """Examples at positions start..start + count of the endless stream over n examples, int64 [count]."""
    return examples_of(np.arange(start, start + count), n, seed, shuffle)


def examples_of(positions: npt.NDArray[np.int64], n: int, seed: int, shuffle: Shuffle = FULL) -> npt.NDArray[np.int64]:
    """Examples at any positions of the endless stream over n examples, int64 [positions].

    The last block is shorter than the others if they do not divide the examples. So that it is not always made of the
    same examples, each epoch begins to count at another example, and goes on with the first one after the last.
    """
    epochs, places = np.divmod(positions, n)
    keys = splitmix64(splitmix64(np.array([seed], np.uint64)) ^ epochs.astype(np.uint64))
    windows = _Windows.of(shuffle, n)
    numbers = windows.number(places // windows.block)
    first = numbers * windows.blocks // windows.count
    end = np.minimum((numbers + 1) * windows.blocks // windows.count * windows.block, n)
    in_window = permute(places - first * windows.block, end - first * windows.block, _mix(keys, numbers))
    slots, offsets = np.divmod(in_window, windows.block)
    slots += first
    whole = n // windows.block
    is_whole = slots < whole  # the short block stays at the end
    blocks = slots.copy()
    key_of_blocks = _mix(keys[is_whole], BLOCKS_OF_EPOCH)
    blocks[is_whole] = permute(slots[is_whole], np.full(len(key_of_blocks), whole), key_of_blocks)
    starts = (_mix(keys, START_OF_EPOCH) % np.uint64(n)).astype(np.int64)
    examples: npt.NDArray[np.int64] = (blocks * windows.block + offsets + starts) % n
    return examples


@dataclass(frozen=True, slots=True)
class _Windows:
    """The windows of an epoch: `blocks` blocks of `block` examples, divided among `count` windows of similar size."""

    block: int
    blocks: int
    count: int

    @classmethod
    def of(cls, shuffle: Shuffle, n: int) -> "_Windows":
        block = min(shuffle.block, n)
        blocks = -(-n // block)
        return cls(block, blocks, -(-blocks // shuffle.window))

    def number(self, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The window of each block. Window i has blocks i * blocks // count to (i + 1) * blocks // count."""
        return ((blocks + 1) * self.count - 1) // self.blocks


def _mix(keys: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int64] | int) -> npt.NDArray[np.uint64]:
    """A key of its own for each number below each of the keys."""
    return splitmix64(keys ^ splitmix64(np.atleast_1d(np.asarray(numbers, np.uint64))))
