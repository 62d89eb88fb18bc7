"""`lime_vision` as a model family of transformers: pictures become 10 tokens in front of a causal language model.

A picture of 224 x 224 pixels gives 7 x 7 features. Token 0 is their mean; the others are the means of 3 x 3 overlapping
windows. A projector maps each of them into the embedding space of the language model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from .efficientnet_lite import CHANNELS, GRID, EfficientNetLite

WINDOWS = 3  # along each side
TOKENS = 1 + WINDOWS**2  # of a picture


class LimeVisionConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The configuration of `LimeVisionForConditionalGeneration`."""

    model_type = "lime_vision"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}  # noqa: RUF012

    text_config: Any = None  # of the language model
    image_token_id: int = 16  # the token whose place a feature takes
    projector_width: int = 1152  # inner features of the projector
    tie_word_embeddings: bool = True


class Projector(nn.Module):
    """From a pooled feature to the embedding space: LayerNorm, Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.inner = nn.Linear(CHANNELS, width)
        self.outer = nn.Linear(width, hidden)

    def forward(self, pooled: Tensor) -> Tensor:
        """[..., 1280] -> [..., H]."""
        out: Tensor = self.outer(nn.functional.gelu(self.inner(self.norm(pooled))))
        return out


def pooling() -> Tensor:
    """Weights of the features in each token, [10, 49]: the mean of all, then of 3 x 3 overlapping windows."""
    bounds = [(GRID * i // WINDOWS, -(-GRID * (i + 1) // WINDOWS)) for i in range(WINDOWS)]
    cells = torch.zeros(TOKENS, GRID, GRID)
    cells[0] = 1
    for row, (top, bottom) in enumerate(bounds):
        for column, (left, right) in enumerate(bounds):
            cells[1 + WINDOWS * row + column, top:bottom, left:right] = 1
    flat = cells.flatten(1)
    return flat / flat.sum(1, keepdim=True)


class _LimeVisionPreTrained(PreTrainedModel):  # type: ignore[no-untyped-call]
    config_class = LimeVisionConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["LlamaDecoderLayer"]  # noqa: RUF012
    _supports_sdpa = _supports_flash_attn = _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Keep the variance through the convolutions: with transformers' own start, 16 blocks end in zeros."""
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]


class LimeVisionModel(_LimeVisionPreTrained):  # type: ignore[no-untyped-call]
    """Tower, projector and the language model without its head."""

    pooling: Tensor

    def __init__(self, config: LimeVisionConfig) -> None:
        super().__init__(config)
        self.vision_tower = EfficientNetLite()
        self.projector = Projector(config.projector_width, config.text_config.hidden_size)
        self.language_model: Any = AutoModel.from_config(config.text_config)  # type: ignore[no-untyped-call]
        self.register_buffer("pooling", pooling())  # kept with the weights: transformers fills no others
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the language model."""
        found: nn.Module = self.language_model.get_input_embeddings()
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the language model."""
        self.language_model.set_input_embeddings(value)

    def get_decoder(self) -> nn.Module:
        """The language model without its head."""
        found: nn.Module = self.language_model
        return found

    def pooled_features(self, pixel_values: Tensor) -> Tensor:
        """Features before the projector: [N, 3, 224, 224] -> [N, 10, 1280]."""
        grid = self.vision_tower(pixel_values).flatten(2)  # [N, 1280, 49]
        return torch.matmul(self.pooling, grid.transpose(1, 2))

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Features of pictures, as `pooler_output` [N, 10, H].

        Args:
            pixel_values: RGB from 0 to 255, minus 127, divided by 128, [N, 3, 224, 224].
        """
        pooled = self.pooled_features(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=pooled, pooler_output=self.projector(pooled))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the language model; features of pictures take the places of image tokens, in order.

        Raises:
            ValueError: Not one of `input_ids` and `inputs_embeds`, or image tokens and features differ in number.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected one of input_ids and inputs_embeds")
        if pixel_values is not None:
            inputs_embeds = self._with_features(input_ids, inputs_embeds, pixel_values)
            input_ids = None
        return self.language_model(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)

    def _with_features(self, ids: Tensor | None, embedded: Tensor | None, pixel_values: Tensor) -> Tensor:
        if ids is None:
            raise ValueError("pictures need input_ids, whose image tokens say where they stand")
        embedded = self.get_input_embeddings()(ids)
        features = self.projector(self.pooled_features(pixel_values)).flatten(0, 1)  # [N * 10, H]
        places = ids == self.config.image_token_id
        if int(places.sum()) != len(features):
            raise ValueError(f"{int(places.sum())} image tokens for {len(features)} features")
        return embedded.masked_scatter(places[..., None], features.to(embedded.dtype))


class LimeVisionForConditionalGeneration(_LimeVisionPreTrained, GenerationMixin):  # type: ignore[no-untyped-call]
    """The model with its head, tied to the embedding."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LimeVisionConfig) -> None:
        super().__init__(config)
        self.model = LimeVisionModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        head: nn.Module = self.lm_head
        return head

    def get_decoder(self) -> nn.Module:
        """The language model without its head."""
        found: nn.Module = self.model.get_decoder()
        return found

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """See `LimeVisionModel.get_image_features`."""
        found: BaseModelOutputWithPooling = self.model.get_image_features(pixel_values, **kwargs)
        return found

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, K, V] of the tokens in `logits_to_keep` (0: of all), and the loss where `labels` are given."""
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept])
        loss = None
        if labels is not None:
            size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=outputs.cache)


def register() -> None:
    """Let transformers' Auto classes open the family. May be called again."""
    AutoConfig.register(LimeVisionConfig.model_type, LimeVisionConfig, exist_ok=True)
    AutoModel.register(LimeVisionConfig, LimeVisionModel, exist_ok=True)
    AutoModelForImageTextToText.register(LimeVisionConfig, LimeVisionForConditionalGeneration, exist_ok=True)
