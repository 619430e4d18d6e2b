"""A small tokenizer in the layout of UMT5's: byte-level pairs, so every text has tokens, ended by </s>."""

from collections.abc import Iterable
from pathlib import Path

VOCABULARY = 1536
SPECIAL = ("<pad>", "</s>", "<unk>")

# Words that prompts to video models are made of; those of the captions come from the captions.
_WORDS = """
the of and to in is that it was for on are as with his they at be this have from or had by not what all were we
when your can said there use each which she how their if will up other about out many then them these so some her
would make like him into time has look two more write go see number no way could people my than first water been
who its now find long down day did get come made may part over new sound take only little work know place year live
back most very after things just name good man think say great where through much before line right too any same
tell boy follow came want show also around three small set put end does another well large must big even such turn
here why asked went men read need land different home us move try kind hand picture again change off play air away
animal house point page letter mother answer found study still learn world high every near add food between own below
camera shot video scene style cinematic realistic slowly quickly smooth steady close wide angle light dark bright
shadow soft colour color shape motion moving walking running flying dancing rotating rising falling city street forest
mountain river lake sea ocean beach sky cloud sun moon star rain snow night morning evening cat dog bird horse fish
tree flower grass field road car train boat plane woman girl child face eyes hair hat coat dress table chair window
door room kitchen paper glass bottle wood metal stone fire smoke painting watercolor cartoon anime sketch blurry low
quality static worst jpeg artifacts ugly deformed text subtitles overexposed background foreground
"""


def train_tokenizer(captions: Iterable[str], folder: Path) -> None:
    """Learn byte pairs from captions and common words; write tokenizer.json and tokenizer_config.json to `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*captions, *[_WORDS.replace("\n", " ")] * 20], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    folder.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(str(folder))
