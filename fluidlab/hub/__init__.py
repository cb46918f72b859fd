"""Where a model's files are: shipped, in a folder, in the local Hugging Face cache, or on the hub, in this order."""

from fluidlab.hub.failures import hub_failure
from fluidlab.hub.files import Wanted, has_tokenizer, read_json, reading, tokenizer_beside, weight_files
from fluidlab.hub.find import as_path, can_only_be_a_path, find_model, reach, split_name

__all__ = ["Wanted", "as_path", "can_only_be_a_path", "find_model", "has_tokenizer", "hub_failure", "reach",
           "read_json", "reading", "split_name", "tokenizer_beside", "weight_files"]
