"""Names of files, folders, graph inputs and graph outputs, each defined only here."""

from __future__ import annotations

# -- an exported model directory --------------------------------------------------------------------
MODEL_JSON = "lime.json"
GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
GENAI_CONFIG = "genai_config.json"
TOKENIZER_FILE = "tokenizer.json"
SKILLS_FOLDER = "skills"
ROUTE_FILE = "route.safetensors"  # of a checkpoint, too: statistics of states, for choosing a skill
WEB_JSON = "web.json"  # of a model exported for browsers
VISION_FILE = "vision.onnx"  # pictures -> features; only models that see have it
VISION_WEIGHTS_FILE = "vision.onnx.data"
VISION_JSON = "vision.json"

# -- a checkpoint -----------------------------------------------------------------------------------
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
GENERAL_SKILL = "general.lime"

# -- a skill ----------------------------------------------------------------------------------------
SKILL_SUFFIX = ".lime"
AUTO_SKILL = "auto"  # names no skill: one is chosen by the request
SIGNATURE_SUFFIX = ".sig"  # appended to the full name of the signed file

# -- the graph --------------------------------------------------------------------------------------
DOMAIN = "ai.lime"  # domain of the operators
BANK = "lime.bank"  # float [N, P]: row n holds the vectors of skill n; row 0 is the base
ROW = "lime.row"  # float [1, P]: the vectors of the active skill, in graphs for browsers
SKILL_IDS = "lime.skill_ids"  # int64 [B, S] or [B, 1]: the bank row for each token
PAST_EVIDENCE = "lime.past_evidence"  # float [B, n - 1, R + 1]: routing evidence of earlier tokens
EVIDENCE = "lime.evidence"  # float [B, S, R]: routing evidence of this run
STATE = "lime.state"  # float [B, S, D]: states after one layer, by which a skill is chosen
LOGITS_FROM = "lime.logits_from"  # int64 []: the first position to compute logits for
FEATURES = "lime.features"  # float32 [F, H]: features of pictures, used instead of embeddings
FEATURE_IDS = "lime.feature_ids"  # int64 [B, S]: the row of `FEATURES` for each token; -1 is text

# -- the vision graph -------------------------------------------------------------------------------
PIXEL_VALUES = "pixel_values"  # float32 [tiles, 3, height, width]; of families in patches [patches, values]
PATCH_POSITIONS = "positions"  # int64 [patches, 2]: row and column; families in patches only
SEGMENT_IDS = "segment_ids"  # int64 [patches]: patches of one frame have the same; families in patches only
WINDOW_IDS = "window_ids"  # int64 [patches]: patches of one attention window have the same; Qwen2.5-VL only
VISION_FEATURES = "features"  # float32 [tiles, tokens, H]; of families in patches [patches / merge^2, H]
VISION_NEWLINE = "newline"  # float32 [H]: the learned end of a row of features; LLaVA-OneVision only
