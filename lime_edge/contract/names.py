"""Names of files, folders, graph inputs and graph outputs, each defined only here."""

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
SIGNATURE_SUFFIX = ".sig"  # appended to the full name of the signed file

# -- the graph --------------------------------------------------------------------------------------
DOMAIN = "ai.lime"  # domain of the operators
BANK = "lime.bank"  # float [N, P]: row n holds the vectors of skill n; row 0 is the base
SKILL_IDS = "lime.skill_ids"  # int64 [B, S] or [B, 1]: the bank row for each token
PAST_EVIDENCE = "lime.past_evidence"  # float [B, n - 1, R + 1]: routing evidence of earlier tokens
EVIDENCE = "lime.evidence"  # float [B, S, R]: routing evidence of this run
LOGITS_FROM = "lime.logits_from"  # int64 []: the first position to compute logits for
