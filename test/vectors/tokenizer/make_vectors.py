"""Writes vectors.json: what Hugging Face's own code makes of this project's tokenizer files.

Needs tokenizers, transformers and jinja2. First write the files with

    node test/vectors/tokenizer/write-files.ts DIRECTORY

then run, from the root of the repository:

    python test/vectors/tokenizer/make_vectors.py DIRECTORY
"""

import hashlib
import json
import random
import sys
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
SPECIAL = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEXTS = [
    "",
    " ",
    "First Citizen:\nBefore we proceed any further, hear me speak.",
    "O Romeo, Romeo! wherefore art thou Romeo?\n\n\nDeny thy father",
    "  two  spaces, three   spaces,\ttabs\t\t, trailing   ",
    "line\r\nends\r\n\r\n  indented\n",
    "1234567890 12 + 34 = 46, 3.14159 and x2y3z 7",
    "don't we'll they've I'm he'd it's you're 'tis DON'T",
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \U0001f600\U0001f469\u200d\U0001f467",
    "e\u0301 combining, \u00bd half, \u2167 roman, \u0663 arabic digit, \u00b2",
    "\u0085next\u00a0line\u2003em\u3000ideographic\ufeffbom\u200bzero\u180e",
    "\u0000\u0001\u007f control",
    "<|user|>What is 2+2?<|end|><|assistant|>4<|end|><|endoftext|>",
    "a<|end|> b <|end|>c<|en d|> <|unknown|> <|end|",
    "$x^2$ {json: [1, 2]} </html> \\frac{1}{2} #!@%&*()_+-=~`|",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "the the the thethethe  the",
]
CHATS = [
    [{"role": "user", "content": "What is 12 + 30?"}],
    [
        {"role": "user", "content": "Hello\n  there "},
        {"role": "assistant", "content": "Good morrow."},
        {"role": "user", "content": "\u65e5\u672c"},
    ],
]


def random_texts(count):
    source = random.Random(1)
    alphabet = (
        "abcdefghij THEthe'sdmtlvre0123456789 \n\t.,;:!?<|>end_-\u00e9\u00df\u65e5\U0001f600\u00a0\u2028\u0301"
    )
    return ["".join(source.choices(alphabet, k=source.randrange(1, 80))) for _ in range(count)]


def train_merges(text, pattern, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return json.loads(tokenizer.to_str())["model"]


def ids_hash(ids):
    return hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()


def main(directory):
    text = Path("data/shakespeare.txt").read_text(encoding="utf-8")
    fast = transformers.AutoTokenizer.from_pretrained(directory)
    file = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    pattern = file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    trained = train_merges(text, pattern, len(fast))
    encode = lambda t: fast(t, add_special_tokens=False)["input_ids"]
    whole = encode(text)
    vectors = {
        "magic": "covenant.vectors.tokenizer",
        "version": 1,
        "command": "python test/vectors/tokenizer/make_vectors.py DIRECTORY",
        "madeWith": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__},
        "training": {
            "vocabSize": len(fast),
            "sameAsHuggingFace": trained["vocab"] == file["model"]["vocab"]
            and trained["merges"] == file["model"]["merges"],
            "merges": trained["merges"],
        },
        "eosId": fast.eos_token_id,
        "texts": [
            {"text": t, "ids": encode(t), "decoded": fast.decode(encode(t))}
            for t in TEXTS + random_texts(200)
        ],
        "shakespeare": {"count": len(whole), "idsSha256": ids_hash(whole)},
        "chats": [
            {
                "messages": chat,
                "rendered": fast.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=prompt
                ),
                "addGenerationPrompt": prompt,
                "ids": fast.apply_chat_template(
                    chat, tokenize=True, add_generation_prompt=prompt, return_dict=False
                ),
            }
            for chat in CHATS
            for prompt in (False, True)
        ],
    }
    target = HERE / "vectors.json"
    target.write_text(json.dumps(vectors, ensure_ascii=True, indent=0) + "\n", encoding="utf-8")
    print(f"{target}: same training result: {vectors['training']['sameAsHuggingFace']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
