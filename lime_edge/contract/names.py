"""Names that files, folders, graph inputs and graph outputs have: each is written here and nowhere else."""

from __future__ import annotations

# -- an exported model directory --------------------------------------------------------------------
MODEL_JSON = "lime.json"
GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
GENAI_CONFIG = "genai_config.json"
TOKENIZER_FILE = "tokenizer.json"
SKILLS_FOLDER = "skills"

# -- a checkpoint -----------------------------------------------------------------------------------
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
GENERAL_SKILL = "general.lime"

# -- a skill ----------------------------------------------------------------------------------------
SKILL_SUFFIX = ".lime"
SIGNATURE_SUFFIX = ".sig"  # after the whole name of the file that it signs

# -- the graph --------------------------------------------------------------------------------------
DOMAIN = "ai.lime"  # of the operators
BANK = "lime.bank"  # float [N, P]: row n holds the vectors of skill n; row 0 is the base
SKILL_IDS = "lime.skill_ids"  # int64 [B, S] or [B, 1]: the row that every token uses
PAST_EVIDENCE = "lime.past_evidence"  # float [B, n - 1, R + 1]: routing evidence of earlier tokens
EVIDENCE = "lime.evidence"  # float [B, S, R]: the same of this run
LOGITS_FROM = "lime.logits_from"  # int64 []: the first position whose logits are wanted
