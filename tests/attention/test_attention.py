"""`hf-mixup attention`: its numbers against transformers, hooks, loops and scipy; its files and its refusals."""

import builtins
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy
from transformers import AutoModel, AutoTokenizer, SqueezeBertConfig, SqueezeBertModel

from hf_mixup.attention import attention_entropy, attention_maps, attention_share, measure_texts
from hf_mixup.attention.passes import attend, compared_methods, in_pairs
from hf_mixup.cli import main
from hf_mixup.demo.run import minilm_folder
from hf_mixup.modeling import AutoMixupModelForSequenceClassification
from tests.data_files import write_csv
from tests.modeling import hooked
from tests.tiny import NUM_LAYERS, SENTENCES, tiny_batch, tiny_model, wordpiece_tokenizer

ALL = tuple(range(1, NUM_LAYERS + 1))
PARTNER = [4, 3, 2, 1, 0]
TEXTS = [(text,) for text in SENTENCES]


@pytest.fixture(scope="module")
def tiny_bert(tiny_bert_folder):
    model = AutoMixupModelForSequenceClassification.from_pretrained(tiny_bert_folder, attn_implementation="eager")
    return model.eval(), AutoTokenizer.from_pretrained(tiny_bert_folder)


@pytest.fixture(scope="module")
def stock_bert(tiny_bert_folder):
    return AutoModel.from_pretrained(tiny_bert_folder, attn_implementation="eager").eval()


@pytest.fixture
def call(tiny_bert_folder, tmp_path, capsys):
    """Run the command and return its exit code, output and errors."""

    def run(*flags, model=tiny_bert_folder, out=tmp_path / "out"):
        argv = ["attention", "--model_name_or_path", model, "--output_dir", out, *flags]
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


PAIR = ("--text", SENTENCES[0], "--partner", SENTENCES[1], "--layer", "2", "--head", "3")


@pytest.mark.parametrize("name", ["clean", "amplify", "amplify in the block", "embedmix"])
def test_attention_of_every_family_is_that_of_its_hooked_parent(any_family, name):
    model = tiny_model(any_family, attention="eager").eval()
    parent = tiny_model(any_family, mixup=False, attention="eager").eval()
    batch = tiny_batch(any_family)
    site, layers, policy = {
        "clean": ("logits", (), "own"),
        "amplify": ("attention", ALL, "own"),
        "amplify in the block": ("attention_block", ALL, "own"),
        "embedmix": ("embeddings", (), "union"),
    }[name]
    with torch.no_grad(), hooked.mixing_hooks(any_family, parent, batch, PARTNER, 0.7, site, layers, policy):
        expected = parent(**batch, output_attentions=True).attentions
    method = compared_methods(0.7, "attention_block" if name.endswith("block") else "attention")[name.split()[0]]
    attentions, seen = attend(model, batch, method)
    tokens = batch["attention_mask"]
    wanted = hooked.mask_of_policy(tokens, PARTNER, policy).bool()
    assert torch.equal(seen, wanted)
    assert len(attentions) == NUM_LAYERS
    plain = parent(**batch, output_attentions=True).attentions
    for layer, (found, right) in enumerate(zip(attentions, expected, strict=True), start=1):
        for row in range(len(tokens)):
            torch.testing.assert_close(found[row][:, wanted[row]], right[row][:, wanted[row]], atol=3e-6, rtol=1e-5)
        # AMPLIFY mixes after the attention of block 1, which is therefore still the clean one.
        changed = name == "embedmix" or (name != "clean" and layer > 1)
        assert ((found - plain[layer - 1]).abs().max() > 1e-3) == changed


def test_entropy_and_share_equal_scipy_and_loops():
    generator = np.random.default_rng(0)
    weights = generator.dirichlet([0.3] * 6, size=(4, 2, 6))
    weights[0, 0, 0] = [1, 0, 0, 0, 0, 0]
    tokens = np.arange(6) < np.array([6, 3, 1, 5])[:, None]
    weights[~np.broadcast_to(tokens[:, None], (4, 2, 6))] = np.nan  # what padding attends to is nobody's business
    columns = generator.random((4, 6)) < 0.4
    given = [torch.from_numpy(each) for each in (weights, tokens, columns)]
    for row in range(4):
        lines = [weights[row, head, i] for head in range(2) for i in range(6) if tokens[row, i]]
        assert attention_entropy(*given[:2])[row] == pytest.approx(np.mean([entropy(line) for line in lines]))
        shares = [sum(line[j] for j in range(6) if columns[row, j]) for line in lines]
        assert attention_share(*given)[row] == pytest.approx(np.mean(shares))


def test_maps_hold_the_attention_and_the_tokens_of_both_texts(tiny_bert, stock_bert):
    model, tokenizer = tiny_bert
    texts = [SENTENCES[0], "a film about the moon"]
    maps = attention_maps(model, tokenizer, texts[:1], texts[1:], layer=2, head=3, lam=0.6)
    own, other = (tokenizer.tokenize(text, add_special_tokens=True) for text in texts)
    assert maps[0].tokens == tuple(own) and maps[1].tokens == tuple(other)
    assert len(own) > len(other)
    other += ["[PAD]"] * (len(own) - len(other))
    mixed = tuple(one if one == two else f"{one} + {two}" for one, two in zip(own, other, strict=True))
    assert maps[2].tokens == maps[3].tokens == mixed
    for text, found in zip(texts, maps, strict=False):
        right = stock_bert(**tokenizer(text, return_tensors="pt"), output_attentions=True).attentions[1][0, 3]
        np.testing.assert_allclose(found.weights, right.detach().numpy(), atol=1e-6)
        assert found.entropy == pytest.approx(entropy(found.weights, axis=1).mean(), abs=1e-6)
        assert found.separator_share == pytest.approx(found.weights[:, -1].mean(), abs=1e-6)
    # With the texts the other way round, embedmix sees the longer partner's tokens too, and amplify does not.
    swapped = attention_maps(model, tokenizer, texts[1:], texts[:1], layer=2, lam=0.6)
    assert len(swapped[2].tokens) == len(swapped[0].tokens) < len(swapped[3].tokens) == len(own)
    assert swapped[3].tokens[-1] == "[PAD] + [SEP]"
    right = stock_bert(**tokenizer(texts[0], return_tensors="pt"), output_attentions=True).attentions[1][0]
    np.testing.assert_allclose(swapped[1].weights, right.mean(dim=0).detach().numpy(), atol=1e-6)


def test_a_share_of_one_leaves_the_clean_map(tiny_bert):
    clean, _, *mixed = attention_maps(*tiny_bert, [SENTENCES[0]], [SENTENCES[1]], layer=3, lam=1.0)
    assert all(np.array_equal(each.weights, clean.weights) for each in mixed)


def test_two_texts_are_read_as_a_pair_with_two_separators(tiny_bert):
    clean = attention_maps(*tiny_bert, SENTENCES[:2], SENTENCES[2:4], layer=1)[0]
    ends = [position for position, token in enumerate(clean.tokens) if token == "[SEP]"]
    assert len(ends) == 2 and ends[1] == len(clean.tokens) - 1
    assert clean.separator_share == pytest.approx(clean.weights[:, ends].sum(axis=1).mean(), abs=1e-6)


def test_numbers_over_texts_equal_a_loop(tiny_bert, stock_bert):
    """Row by row, with transformers for clean rows and hooks on its model for mixed ones."""
    model, tokenizer = tiny_bert
    texts = [(f"{text} {i}",) for i in range(3) for text in SENTENCES[1:]]  # an odd number, more than one batch
    found = measure_texts(model, tokenizer, texts, lam=0.7, seed=3)
    assert [(row["method"], row["layer"]) for row in found] == [
        (name, layer) for name in ("clean", "amplify", "embedmix") for layer in ALL
    ]
    order = np.random.default_rng(3).permutation(len(texts))
    parent = tiny_model("bert", mixup=False, attention="eager", vocab_size=len(tokenizer)).eval()
    parent.bert.load_state_dict(stock_bert.state_dict())
    methods = {
        "clean": ("logits", (), "own"),
        "amplify": ("attention", ALL, "own"),
        "embedmix": ("embeddings", (), "union"),
    }
    sums = {(name, layer): np.zeros(4) for name in methods for layer in ALL}
    partners = {}
    for batch in (order[:16], np.append(order[16:], order[1])):
        partners |= dict(zip(batch, batch[::-1], strict=True)) | partners
    assert sorted(partners) == list(range(21))
    for row, partner in partners.items():
        pair = [texts[row][0], texts[partner][0]]
        batch = dict(tokenizer(pair, padding=True, return_tensors="pt"))
        ids, tokens = batch["input_ids"], batch["attention_mask"]
        ends = [[t for t, token in enumerate(line) if token == tokenizer.sep_token_id] for line in ids.tolist()]
        for name, (site, layers, policy) in methods.items():
            seen = hooked.mask_of_policy(tokens, [1, 0], policy)[0].bool()
            with torch.no_grad(), hooked.mixing_hooks("bert", parent, batch, [1, 0], 0.7, site, layers, policy):
                attentions = parent(**batch, output_attentions=True).attentions
            for layer in ALL:
                lines = attentions[layer - 1][0][:, seen].reshape(-1, len(seen)).double().numpy()
                only_partner = [t for t in ends[1] if t not in ends[0]]
                sums[name, layer] += [
                    int(seen.sum()),
                    entropy(lines, axis=1).mean(),
                    lines[:, ends[0]].sum(axis=1).mean(),
                    lines[:, only_partner].sum(axis=1).mean(),
                ]
    for row in found:
        right = (sums[row["method"], row["layer"]] / len(texts)).tolist()
        if row["method"] == "clean":
            assert row["partner_separator_share"] is None
            right[3] = None
        numbers = [row[name] for name in ("tokens", "entropy", "separator_share", "partner_separator_share")]
        assert numbers == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 15, 16, 17, 33])
def test_every_row_is_in_one_pair(count):
    rows = list(range(100, 100 + count))
    batches = list(in_pairs(rows, 16))
    assert sum(batches, []) == rows + rows[1 : 1 + count % 2]
    assert all(one != two for batch in batches for one, two in zip(batch, batch[::-1], strict=True))


class Reader(HTMLParser):
    """The tables of a page as a screen reader has them, and what it would load from elsewhere."""

    def __init__(self):
        super().__init__()
        self.tables, self.loaded, self.open = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.loaded += [value for name, value in attributes if name in ("src", "href")]
        self.loaded += [tag] if tag in ("script", "link", "iframe", "img") else []
        self.open = tag
        if tag == "table":
            self.tables.append({"head": [], "lines": []})
        if tag == "tr":
            self.tables[-1]["lines"].append([])
        if tag in ("th", "td"):
            self.tables[-1]["lines"][-1].append("")

    def handle_data(self, data):
        if self.tables and self.tables[-1]["lines"] and data.strip():
            self.tables[-1]["lines"][-1][-1] += data


def test_maps_as_picture_and_page(call, tmp_path, tiny_bert, recwarn):
    texts = ["$5 or $6 <b>bold & 中", "the \u202e \\a $$"]
    code, out, err = call("--text", texts[0], "--partner", texts[1], "--layer", "2", "--head", "3")
    files = [tmp_path / "out" / f"layer2_head3.{ending}" for ending in ("png", "html")]
    assert (code, err) == (0, "") and out == "".join(f"{file}\n" for file in files)
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    with Image.open(files[0]) as picture:
        assert min(picture.size) > 500 and len(picture.getcolors(2**24)) > 50

    text = files[1].read_text(encoding="utf-8")
    page = Reader()
    page.feed(text)
    assert page.loaded == [] and "url(" not in text and "@import" not in text and "<b>" not in text
    assert "prefers-color-scheme: dark" in text and "$5 or $6 &lt;b&gt;bold &amp; 中" in text
    maps = attention_maps(*tiny_bert, texts[:1], texts[1:], layer=2, head=3)
    assert len(page.tables) == len(maps) == 4
    for table, right in zip(page.tables, maps, strict=True):
        (_, *head), *lines = table["lines"]
        assert tuple(head) == tuple(line[0] for line in lines) == right.tokens
        numbers = np.array([line[1:] for line in lines], dtype=float)
        np.testing.assert_allclose(numbers, right.weights, atol=0.0051)
    # One scale for all: the highest weight of the four has the last colour, which no lower one has.
    levels = [int(level) for level in re.findall(r'<td class="a(\d+)">', text)]
    weights = np.concatenate([each.weights.ravel() for each in maps])
    assert levels == np.floor(50 * weights / weights.max() + 0.5).astype(int).tolist()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_numbers_over_a_file_as_table_and_json(call, tmp_path, tiny_bert, ending, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / f"texts.{ending}"
    if ending == "csv":
        write_csv(file, ("sentence", "label"), [(text, "x") for text in SENTENCES])
    else:
        file.write_text("".join(json.dumps({"sentence": text}) + "\n" for text in SENTENCES), encoding="utf-8")
    code, out, err = call("--file", file, "--mixup_lambda", "0.7", "--mixup_site", "attention_block")
    written = json.loads((tmp_path / "out" / "attention.json").read_text(encoding="utf-8"))
    assert code == 0, err
    assert written["rows"] == measure_texts(*tiny_bert, TEXTS, lam=0.7, site="attention_block")
    settings = {"texts": 8, "mixup_lambda": 0.7, "mixup_site": "attention_block", "seed": 42, "separators": ["[SEP]"]}
    assert settings.items() <= written["settings"].items()
    lines = [line.split() for line in out.splitlines() if re.match(r" *[123] ", line)]
    by_place = {(row["method"], row["layer"]): row for row in written["rows"]}
    all_of, mixed = ("clean", "amplify", "embedmix"), ("amplify", "embedmix")
    measures = {"entropy": all_of, "separator_share": all_of, "partner_separator_share": mixed}
    assert lines == [
        [str(layer), *(f"{by_place[name, layer][measure]:.3f}" for name in names)]
        for measure, names in measures.items()
        for layer in ALL
    ]
    # At 80 columns no heading is cut.
    headings = [line.split() for line in out.splitlines() if line.split()[:1] == ["block"]]
    assert headings == [["block", *names] for names in measures.values()]
    *shown, _ = out.splitlines()
    assert "…" not in out and max(map(len, shown)) <= 80


def test_without_separators_there_is_no_share(tiny_bert):
    model, tokenizer = tiny_bert[0], AutoTokenizer.from_pretrained(tiny_bert[1].name_or_path, sep_token=None)
    assert tokenizer.sep_token_id is None
    rows = measure_texts(model, tokenizer, TEXTS)
    assert {row["separator_share"] for row in rows} == {row["partner_separator_share"] for row in rows} == {None}
    assert attention_maps(model, tokenizer, TEXTS[0], TEXTS[1], 1)[0].summary().endswith("nats")


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ((), "one of the arguments --text --file is required"),
        (("--text", "a"), "--text needs --partner; give it, or --file"),
        (("--text", "a", "--partner", "b"), "--text needs --layer; give it, or --file"),
        (("--text", "a", "b", "--partner", "c", "--layer", "1"), "--text has 2 and --partner 1 texts; give one each"),
        (("--text", " ", "--partner", "b", "--layer", "1"), "--text is empty; give a text"),
        (("--text", "a", "--partner", "b", "--layer", "4"), "--layer=4 does not fit: the model has blocks 1 to 3"),
        (("--text", "a", "--partner", "b", "--layer", "0"), "--layer=0 does not fit: the model has blocks 1 to 3"),
        ((*PAIR[:-1], "4"), "--head=4 does not fit: the model has heads 0 to 3, or average"),
        ((*PAIR[:-1], "mean"), "'mean' is given, but it must be a number from 0, or average"),
        ((*PAIR, "--mixup_lambda", "1.5"), "'1.5' is given, but it must be a number from 0 to 1"),
        ((*PAIR, "--mixup_lambda", "nan"), "'nan' is given, but it must be a number from 0 to 1"),
        ((*PAIR, "--mixup_site", "pooled"), "invalid choice: 'pooled'"),
        ((*PAIR, "--max_seq_length", "2"), "--max_seq_length 2 leaves no token for each text; give at least 3"),
        ((*PAIR, "--seed", "x"), "'x' should be a whole number of at least 0"),
        (("--file", "nowhere.csv"), "--file nowhere.csv does not exist; check the path"),
        (("--file", "texts.txt"), "should be a file that ends in .csv, .tsv, .json"),
        (("--file", "texts.csv", "--layer", "2"), "--layer goes with --text and not with --file; leave one"),
        (("--file", "texts.csv", "--head", "average"), "--head goes with --text and not with --file"),
        ((*PAIR, "--seed", "7"), "--seed goes with --file and not with --text"),
        ((*PAIR, "--text_column_names", "sentence"), "--text_column_names goes with --file and not with --text"),
        (("--file", "texts.csv", "--text", "a"), "not allowed with argument"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(call, tmp_path, flags, wanted):
    code, out, err = call(*flags)
    assert (code, out) == (2, "")
    assert wanted in err and err.startswith("hf-mixup attention: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_mistakes_in_files_and_folders(call, tmp_path, write_csv):
    one = write_csv("one.csv", "sentence,label\ngood,1\n")
    column = write_csv("column.csv", "sentence,label\ngood,1\nbad,0\n")
    empty = write_csv("empty.csv", "sentence,label\ngood,1\n,0\n")
    for flags, wanted in (
        (("--file", one), "has one text; give two or more"),
        (("--file", column, "--text_column_names", "sentense"), "did you mean --text_column_names sentence?"),
        (("--file", empty), "has no text in column 'sentence'"),
        (("--file", column, "--seed", "-1"), "'-1' should be a whole number of at least 0"),
    ):
        code, _, err = call(*flags)
        assert code == 2 and wanted in err and err.count("\n") == 1, err
    code, _, err = call(*PAIR, model=tmp_path / "nowhere")
    assert code == 2 and "nowhere does not exist" in err
    code, _, err = call(*PAIR, out=one)
    assert code == 2 and "one.csv is a file; give a folder" in err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(call, tmp_path):
    assert call(*PAIR)[0] == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    code, _, err = call(*PAIR)
    assert code == 2 and "layer2_head3.png exists; delete it, or give another --output_dir" in err
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    # Nor is anything written through a link that leads nowhere yet.
    for file in before:
        file.unlink()
    (tmp_path / "out" / "layer2_head3.png").symlink_to(tmp_path / "elsewhere.png")
    code, _, err = call(*PAIR)
    assert code == 2 and "layer2_head3.png exists" in err and not (tmp_path / "elsewhere.png").exists()


def test_without_matplotlib_the_extra_is_named(call, tmp_path, monkeypatch):
    load = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return load(name, *args, **kwargs)

    for module in ("figure", "page"):
        monkeypatch.delitem(sys.modules, f"hf_mixup.attention.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    code, _, err = call(*PAIR)
    assert code == 2 and err.count("\n") == 1
    assert 'drawn with matplotlib, which is not installed; run pip install -e ".[compare]" in the checkout' in err
    assert not (tmp_path / "out").exists()


def test_models_without_mixup_classes_are_refused(call, tmp_path):
    sizes = {"hidden_size": 8, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = SqueezeBertConfig(num_hidden_layers=1, vocab_size=400, **sizes)
    SqueezeBertModel(config).save_pretrained(tmp_path / "other")
    wordpiece_tokenizer().save_pretrained(tmp_path / "other")
    code, _, err = call(*PAIR, model=tmp_path / "other")
    assert code == 2 and "'squeezebert' has no mixup class" in err and err.count("\n") == 1


def test_the_page_of_the_documentation_has_the_numbers_of_its_file():
    docs = Path(__file__).resolve().parents[2] / "docs"
    rows = json.loads((docs / "results" / "attention_mrpc.json").read_text(encoding="utf-8"))["rows"]
    lines = re.findall(r"^\| (\d) \| (.*) \|$", (docs / "attention.md").read_text(encoding="utf-8"), re.MULTILINE)
    columns = [("entropy", name) for name in ("clean", "amplify", "embedmix")]
    columns += [("separator_share", name) for name in ("clean", "amplify", "embedmix")]
    columns += [("partner_separator_share", name) for name in ("amplify", "embedmix")]
    numbers = {(measure, row["method"], row["layer"]): row[measure] for row in rows for measure, _ in columns}
    assert len(lines) == max(row["layer"] for row in rows)
    for layer, line in lines:
        assert line.split(" | ") == [f"{numbers[measure, name, int(layer)]:.3f}" for measure, name in columns]


def test_minilm_stands_for_the_weights_of_the_demo_without_their_path(tmp_path):
    flags = ["--text", "a dull film", "--partner", "a great play", "--layer", "1", "--output_dir", str(tmp_path)]
    assert main(["attention", "--model_name_or_path", "minilm", *flags]) == 0
    page = (tmp_path / "layer1_average.html").read_text(encoding="utf-8")
    assert "<dt>Model</dt><dd>minilm</dd>" in page and str(minilm_folder()) not in page


def test_nothing_is_written_through_a_link(call, tmp_path):
    """Also not through one that leads nowhere, whose file does not exist."""
    assert call(*PAIR)[0] == 0
    files = list((tmp_path / "out").iterdir())
    for file in files:
        file.unlink()
        file.symlink_to(tmp_path / "nowhere")
        code, _, err = call(*PAIR)
        assert code == 2 and f"{file.name} exists; delete it" in err and not (tmp_path / "nowhere").exists()
        file.unlink()
    assert len(files) == 2
