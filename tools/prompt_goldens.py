#!/usr/bin/env python3
"""Makes prompts.json: prompts, and what the pipelines of video models make of them before they are tokens.

    pip install ftfy
    python3 tools/prompt_goldens.py crates/formats/tests/fixtures/prompts.json [COUNT]

The cleaning is `ftfy.fix_text`, `html.unescape` twice, white space collapsed and stripped. The prompts are written here, or
made from those: read in wrong encodings once or twice, in part, with spaces for spaces that do not break and with what is lost, and
strings of characters that give such mistakes away. COUNT is how many of the made ones (500 if not given).
"""

import html
import json
import random
import re
import sys

import ftfy
import ftfy.bad_codecs
from ftfy import chardata
from ftfy.badness import MOJIBAKE_CATEGORIES

PROMPTS = [
    "a red circle moving left on a black background",
    "blurry, static, low quality",
    "",
    "   ",
    " two  spaces\tand\n\nlines \r\n here ",
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量",
    "Ｌｏｕｄ　ｎｏｉｓｅｓ！ Ｕﾀｰﾝ ﾊﾞﾅﾅ ﾎﾟｽﾄ ￥100 ￣",
    "“Curly” quotes, ‘single’ ones, ‛odd‚ „ones‟ and it’s ʼn ŉ",
    "ﬂuﬃest ﬁlm, ﬀ ﬄ ﬅ ﬆ, Ǆ ǆ Ĳ ĳ Ǉ ǌ",
    "AT&amp;T &lt;b&gt; &amp;amp; &amp;amp;amp;lt; &quot;x&quot; &apos;y&apos;",
    "<b>&amp;lt;</b> &eacute;",
    "P&EACUTE;REZ &NTILDE; &nTILDE; &SZLIG; &FRAC12; &AMP; &LTIMES; &COPY; &GT",
    "&eacute &notit; &notin; &copy2024 &amp no &x; &; &#; &#x; &#xg; & alone &ampere &thetasym &theta",
    "&#233; &#xE9; &#Xe9 &#0; &#13; &#128; &#x81; &#1; &#11; &#xFFFE; &#xD800; &#x110000; &#99999999999; &#59; &#x1F600;x &#65xyz",
    "&Aacute;&Jscr;&HilbertSpace;&checkmark;&NotEqualTilde;&CounterClockwiseContourIntegral; &acE;",
    "\x1b[36;44mblue\x1b[0m \x1b[K \x1b[1;2 \x1b] \x1b[ x",
    "zero\x00 bell\x07 tab\x0b esc\x1b del\x7f bom\ufeff \u206a \ufff9 \ufffc nel\x85 ls\u2028ps\u2029 zwj\u200d zwsp\u200b nbsp\xa0 shy\xad",
    "e\u0301 A\u030a \u1100\u1161\u11a8 \u0915\u093c \u212b \u2126",
    "Ã la mode, Ã  la carte, voilÃ le travail, Ã s vezes, Ã quele dia, fÃ cil",
    "sÃ³ â€œhiâ€\x9d âœ” l’humanitÃ© donâ€™t ðŸ˜€ Ð¿Ñ€Ð¸Ð²ÐµÑ‚ ä½ å¥½",
    "â€œ like this â€� caf� c�t�",
    "The Mona Lisa doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t have eyebrows.",
    "ÀB ÁC résumé naïve Ångström Ø ÿ ¿qué? ¡sí! 5° £5 €10 ½ × ²",
    "à noter: À l'été. Â ok. Â£20 Â© Ã‰cole ÃŽle",
    "вЂњРџСЂРёРІРµС‚вЂќ РњРѕСЃРєРІР° привет",
    "╨┐╤А╨╕╨▓╨╡╤В ┬░ тАЬ √© ‚Äúhi‚Äù ‚Äôs",
    "\xed\xa0\xbd\xed\xb8\x80 \xc0\x80 \xc3\xa9\xc0\n",
    "kaomoji ┒(⌣˘_˘⌣)┎ ( ͡° ͜ʖ ͡°) ¯\\_(ツ)_/¯ (╯°□°)╯︵ ┻━┻",
    "emoji 👩‍👩‍👧‍👦 🇨🇭 👍🏽 flags 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "مرحبا שלום हिन्दी ภาษาไทย 한국어 日本語 ελληνικά Türkçe Česky łódź Ñandú",
    "&#x1c;a&#x1c;b\x1cc\u3000d\u2003e\u180ef",
    "a" * 300,
    "&" * 50 + ";" * 50,
    "x&" + "a" * 40 + ";",
    "&amp;" * 3 + "amp;" * 40,
]
ENCODINGS = chardata.CHARMAP_ENCODINGS


def clean(text):
    text = ftfy.fix_text(text)
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(r"\s+", " ", text).strip()


def misread(text, rng):
    encoding = rng.choice(ENCODINGS)
    try:
        text = text.encode("utf-8").decode(encoding)
    except (UnicodeDecodeError, UnicodeEncodeError):
        pass
    if rng.random() < 0.3:
        text = text.replace("\xa0", " ")
    if rng.random() < 0.2:
        text = re.sub("[\x80-\x9f]", "\ufffd", text)
    if rng.random() < 0.1:
        text = re.sub("[\x80-\x9f]", "?", text)
    return text


def made(rng):
    words = re.split(r"( )", rng.choice(PROMPTS[:-4]))
    kind = rng.random()
    if kind < 0.45:
        text = misread("".join(words), rng)
        if rng.random() < 0.4:
            text = misread(text, rng)
        return text
    if kind < 0.75:
        return "".join(misread(word, rng) if rng.random() < 0.5 else word for word in words)
    pools = ["".join(chr(c) for c in range(0xA0, 0x250)), "aZ 09.,\n&;<#", "".join(CLASSES), "".join(CLUES)]
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randrange(1, 16)))


def members(pattern):
    pattern = re.compile(f"[{pattern}]")
    return "".join(c for c in map(chr, range(0x20, 0x10000)) if pattern.match(c))


CLASSES = [members(chars) for chars in MOJIBAKE_CATEGORIES.values()]
CLUES = [members(chars) for chars in chardata.UTF8_CLUES.values()]


def main():
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    rng = random.Random(0)
    texts = PROMPTS + [made(rng) for _ in range(count)]
    texts = list(dict.fromkeys(texts))
    cases = [{"text": text, "clean": clean(text)} for text in texts]
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    with open(sys.argv[1], "w") as file:
        file.write(f"[\n{lines}\n]\n")
    print(len(cases), "prompts,", sum(case["text"] != case["clean"] for case in cases), "changed")


if __name__ == "__main__":
    main()
