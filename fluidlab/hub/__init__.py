"""Where a model's files are: shipped, in a folder, in the local Hugging Face cache, or on the hub, in this order."""

from fluidlab.hub.failures import hub_failure
from fluidlab.hub.find import can_only_be_a_path, find_model, split_name

__all__ = ["can_only_be_a_path", "find_model", "hub_failure", "split_name"]
