"""Images only, by the PIL image processor: the stock processor needs torchvision, and that for videos alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)

from model_runner.image_processor import load_image_processor


class ImageProcessor:
    """As much of a Hugging Face processor as vLLM asks for: images to ``pixel_values`` and ``image_grid_thw``."""

    def __init__(self, image_processor: Qwen2VLImageProcessorPil, image_token: str) -> None:
        self.image_processor = image_processor
        self.image_token = image_token

    def __call__(self, images: Any, return_tensors: str = "pt", **kwargs: object) -> BatchFeature:
        return self.image_processor(images=images, return_tensors=return_tensors, **kwargs)


class ILVRProcessingInfo(Qwen2_5_VLProcessingInfo):
    def get_hf_processor(self, **kwargs: object) -> Any:
        return ImageProcessor(self.get_image_processor(), self.image_token())

    def get_image_processor(self, **kwargs: object) -> Any:
        return load_image_processor(self.model_id)

    def image_token(self) -> str:
        """The token that stands for an image in the checkpoint's chat template."""
        token: str = self.get_tokenizer().convert_ids_to_tokens([self.image_token_id()])[0]
        return token

    def image_token_id(self) -> int:
        config: Any = self.ctx.model_config.hf_config
        return int(config.image_token_id)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        return {"images_kwargs": set(Qwen2VLImageProcessorPil.valid_kwargs.__annotations__)}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {"image": self.get_max_image_tokens()}


class ILVRDummyInputsBuilder(Qwen2_5_VLDummyInputsBuilder):
    info: ILVRProcessingInfo

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return self.info.image_token() * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        width, height = self.info.get_image_size_with_most_features()
        num_images = mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=width, height=height, num_images=num_images)}


class ILVRMultiModalProcessor(Qwen2_5_VLMultiModalProcessor):
    info: ILVRProcessingInfo

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        """Nothing of nothing: all pictures of the request are known, and vLLM would compute that from empty tensors."""
        return super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs) if hf_inputs else {}

    def _get_prompt_updates(self, *args: Any, **kwargs: Any) -> Sequence[Any]:
        from vllm.multimodal.processing import PromptReplacement

        mm_kwargs = kwargs["out_mm_kwargs"] if "out_mm_kwargs" in kwargs else args[2]
        token_id = self.info.image_token_id()
        merge_length = self.info.get_image_processor().merge_size ** 2

        def replacement(index: int) -> list[int]:
            return [token_id] * (int(mm_kwargs["image"][index]["image_grid_thw"].data.prod()) // merge_length)

        return [PromptReplacement(modality="image", target=[token_id], replacement=replacement)]
