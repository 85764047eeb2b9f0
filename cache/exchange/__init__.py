"""Exchange: stores as files of other projects, and back.

    parquet       everything that a store contains, one row per example
    distillkit    the capture of arcee-ai/DistillKit, with distillkit_bytes for its packed values
    axolotl       pre-tokenized JSON Lines of axolotl's knowledge distillation
    instruction   the texts alone, as JSON Lines of instruction, input and output
    publication   a store or a Parquet file with a data card (data_card), in a folder or as a data set on a hub
    conversion    parts that all of them share

In: an open LogitStore and a path, or a path and the address of a new store. Out: files that appear complete or not at
all, or a store with a snapshot. It knows nothing of the files inside a store. Another form is one more module with an
export and an import function, built on fill_store and token_blocks. Import from the modules: pyarrow is loaded here.
"""
