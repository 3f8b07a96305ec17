"""Templates: the part of Go's text/template that modules use. What is printed here is what Go prints."""

from __future__ import annotations

import contextlib
import pickle
import time

import pytest
import yaml
from deepsquare.workflow import from_dict
from deepsquare.workflow.module_data import template_data
from deepsquare.workflow.templates import Record, TemplateError, render
from hypothesis import given, settings
from hypothesis import strategies as st

ARGS = [Record("Arg", {"Key": key, "Value": value}, {}) for key, value in (("A", "1"), ("B", "two"))]
DATA = Record(
    "data",
    {
        "Name": "a name",
        "None": None,
        "Number": 3,
        "Flag": True,
        "Texts": ["x", "y"],
        "Args": ARGS,
        "Nothing": [],
        "Inner": Record("Inner", {"Deep": Record("Deep", {"Value": "deep"}, {"Value": "value"})}, {"Deep": "deep"}),
    },
    {},
)


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("{{ .Name }}", "a name"),
        ("{{.Name}}", "a name"),
        ("{{ .Inner.Deep.Value }} {{ $.Name }} {{ (index .Args 1).Value }}", "deep a name two"),
        ("{{ .None }} {{ .Number }} {{ .Flag }} {{ .Texts }}", "<nil> 3 true [x y]"),
        ("a \n{{- .Number -}}\n b", "a3b"),
        ("a {{- /* says nothing */ -}} b{{/* nor this {{ }} */}}", "ab"),
        ("{{ 3 -}} x", "3x"),
        ("{{-3}}", "-3"),
        (r'{{ "a\t\"b\"é\x41" }}{{ `raw\n` }}', 'a\t"b"éAraw\\n'),
        ('{{ "}}" }}', "}}"),
        ("{{ 0x10 }} {{ -7 }} {{ 1_000 }}", "16 -7 1000"),
        ("{{ if .None }}a{{ else if .Flag }}b{{ else }}c{{ end }}", "b"),
        ("{{ if and .Flag .Nothing }}a{{ else }}b{{ end }}", "b"),
        ("{{ range .Args }}{{ .Key }}={{ .Value }};{{ end }}", "A=1;B=two;"),
        ("{{ range $i, $a := .Args }}{{ $i }}{{ $a.Key }}{{ $.Number }}{{ end }}", "0A31B3"),
        ("{{ range $t := .Texts }}{{ $t }}{{ end }}", "xy"),
        ("{{ range .Nothing }}a{{ else }}none{{ end }}{{ range .None }}a{{ end }}", "none"),
        ("{{ with .Inner.Deep }}{{ .Value }}{{ end }}{{ with .None }}a{{ else }}b{{ end }}", "deepb"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 9 }}{{ end }}{{ $x }}", "2"),
        ("{{ with $x := .Name }}{{ $x }}{{ end }}", "a name"),
        ('{{ .Name | upper | printf "%s-%d-%v-%q" "a" 1 true }}', 'a-1-true-"A NAME"'),
        (
            "{{ eq .Number 1 3 }} {{ ne 1 2 }} {{ lt 1 2 }} {{ le 2 2 }} {{ gt 1 2 }} {{ ge 1 2 }}",
            "true true true true false false",
        ),
        ('{{ eq .None nil }} {{ eq .None "a" }} {{ lt "a" "b" }}', "true false true"),
        ("{{ not .Flag }} {{ or .None 0 .Name }} {{ and 1 2 }} {{ and .None .None.Deep }}", "false a name 2 <nil>"),
        ('{{ len "é" }} {{ len .Texts }} {{ index .Texts 1 }}', "2 2 y"),
        ('{{ print 1 2 "a" 3 }}', "1 2a3"),
        ('{{ quote "a" 1 nil }} {{ squote "b" }}', '"a" "1" \'b\''),
        ('{{ default "x" .None }}{{ .Number | default 7 }}{{ empty "" }}{{ ternary "y" "n" true }}', "x3truey"),
        ('{{ "a\nb" | indent 2 }}{{ "c" | nindent 1 }}', None),
        ('{{ trim " a " }}{{ lower "AB" }}{{ replace "a" "b" "aa" }}', "aabbb"),
        ('{{ add 1 2 3 }} {{ sub 1 3 }} {{ mul 2 3 }} {{ div -7 2 }} {{ mod -7 2 }} {{ int "4" }}', "6 -2 6 -3 -1 4"),
        ('{{ join ", " .Texts }} {{ join "-" (list 1 "a") }} {{ toString 1 }}', "x, y 1-a 1"),
        ('{{ contains "b" "abc" }} {{ hasPrefix "a" "abc" }} {{ hasSuffix "a" "abc" }}', "true true false"),
        ("{{ toYaml .None }}{{ toYaml .Nothing }}|{{ .Inner | toYaml }}", "|deep:\n  value: deep"),
    ],
)
def test_what_templates_print(template: str, printed: str | None) -> None:
    if printed is None:
        template, printed = '{{ "a\\nb" | indent 2 }}{{ "c" | nindent 1 }}', "  a\n  b\n c"
    assert render(template, DATA) == printed


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [
        ("\n{{ nope }}", 2, "nope is no function of templates here; known are if, range, with, and the functions add,"),
        ('{{ env "HOME" }}', 1, "env is no function"),
        ('{{ template "a" }}', 1, "template is no part of templates here"),
        ("a\n\n{{ .Nam }}", 3, ".Nam is no field of data; did you mean .Name?"),
        ("{{ .Zzz }}", 1, "it has Name, None"),
        ("{{ .Name.Upper }}", 1, ".Upper is asked of a text, which has no fields"),
        ("{{ .None.Deep }}", 1, ".Deep is asked of nil"),
        ("{{ .__class__ }}", 1, ".__class__ is no field"),
        ("{{ .Texts.append }}", 1, "a list, which has no fields"),
        ("{{ $x }}", 1, "$x is not declared"),
        ("{{ $x = 1 }}", 1, "$x is not declared"),
        ("{{ if true }}{{ $y := 1 }}{{ end }}{{ $y }}", 1, "$y is not declared"),
        ("{{ $ := 1 }}", 1, "$ is the whole data"),
        ("{{ if true }}", 1, "has no {{ end }}"),
        ("{{ end }}", 1, "ends nothing"),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", 1, "a second else"),
        ("{{ range 3 }}{{ end }}", 1, "range needs a list, and is given a number"),
        ("{{", 1, "has no }}"),
        ("\n{{ .Name\n", 2, "has no }}"),
        ("{{ }}", 1, "a value or a function is missing"),
        ('{{ "a }}', 1, "a text has no end"),
        ("{{ 'a' }}", 1, "texts are in"),
        ("{{ 1.5 }}", 1, "no whole number"),
        ("{{ 99999999999999999999 }}", 1, "no whole number"),
        ("{{ (1 }}", 1, "a ( has no )"),
        ("{{ 1 | 2 }}", 1, "must be a function"),
        ("{{ .Name 1 }}", 1, ".Name is no function"),
        ("{{ /* a }}", 1, "not expected here"),
        ("{{/* a }}", 1, "a comment has no end"),
        ("{{ upper }}", 1, "upper: takes 1 values, and is given 0"),
        ("{{ upper 1 }}", 1, "upper: needs a text, and is given a number"),
        ("{{ div 1 0 }}", 1, "can't divide by 0"),
        ("{{ mul 9223372036854775807 2 }}", 1, "more than 64 bits"),
        ("{{ index .Texts 2 }}", 1, "a number from 0 to 1"),
        ('{{ printf "%5d" 1 }}', 1, "doesn't know '%5d'"),
        ('{{ printf "%s" }}', 1, "fewer values"),
        ('{{ printf "a" 1 }}', 1, "more values"),
        ('{{ eq 1 "a" }}', 1, "can't compare a number with a text"),
        ('{{ int "the-secret" }}', 1, "needs a whole number, and is given a text"),
        ("{{ list .Texts }}", 1, "list: takes texts and numbers"),
    ],
)
def test_mistakes_are_told_with_their_line(template: str, line: int, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template, DATA)
    assert caught.value.line == line
    assert words in str(caught.value)
    assert "the-secret" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{{ range .Many }}{{ range $.Many }}x{{ end }}{{ end }}", id="loops in loops"),
        pytest.param("{{ range .Many }}{{ $.Long }}{{ end }}", id="output"),
        pytest.param('{{ $x := "aaaaaaaa" }}{{ range .Many }}{{ $x = print $x $x }}{{ end }}', id="a text doubled"),
        pytest.param('{{ range .Many }}{{ $y := replace "a" "b" $.Long }}{{ end }}', id="work on long texts"),
        pytest.param("{{ range .Many }}{{ $y := printf $.Verbs }}{{ end }}", id="verbs"),
        pytest.param("{{ range .Many }}{{ $y := toYaml $.Many }}{{ end }}", id="YAML"),
        pytest.param("{{ range .Many }}{{ $y := toString $.Many }}{{ end }}", id="lists as texts"),
        pytest.param('{{ $y := replace "" .Long .Long }}', id="replaced by long texts"),
        pytest.param("{{ $y := indent 1000 .Lines }}", id="indented"),
        pytest.param("{{ $x := 2 }}{{ range .Many }}{{ $x = mul $x $x }}{{ end }}", id="numbers"),
        pytest.param("{{ if true }}" * 1000 + "{{ end }}" * 1000, id="blocks"),
        pytest.param(f"{{{{ {'(' * 1000}1{')' * 1000} }}}}", id="parentheses"),
        pytest.param("{{ if 1 }}" + "{{ else if 1 }}" * 1000 + "{{ end }}", id="else if"),
        pytest.param("{{ 1 }}" * 60_000, id="parts"),
        pytest.param(
            "".join(f"{{{{ $x{n} := 1 }}}}" for n in range(9000)) + "{{ range .Many }}{{ $x1 }}{{ end }}",
            id="variables",
        ),
    ],
)
def test_what_is_too_much_ends_soon(template: str) -> None:
    data = Record(
        "data", {"Many": ["text"] * 20_000, "Long": "a" * 500_000, "Lines": "\n" * 5000, "Verbs": "%%" * 250_000}, {}
    )
    started = time.monotonic()
    with pytest.raises(TemplateError):
        render(template, data)
    assert time.monotonic() - started < 10


PARTS = (
    *("{{", "}}", "{{- ", " -}}", "{{/*", "*/}}", "{{ if ", "{{ else }}", "{{ end }}", "{{ range ", "{{ with "),
    *(".Name", ".Args", ".Texts", ".Inner.Deep", ".", "$", "$x", "$i, $v := ", " := ", " = ", " | ", "(", ")", " "),
    *("eq ", "and ", "or ", "not ", "len ", "index ", "printf ", "toYaml ", "indent ", "replace ", "list ", "1", "-9"),
    *('"a\\n"', "`r`", '"', "`", "'", "true", "nil", "\n", "text", "{", "}", "é", "\0", "\\", "{{ .Texts }}"),
)


def renders_or_is_refused(template: str) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(render(template, DATA), str)


@settings(deadline=2000)
@given(st.text() | st.text().map(lambda text: f"{{{{ {text} }}}}"))
def test_any_text(template: str) -> None:
    renders_or_is_refused(template)


@settings(deadline=2000, max_examples=500)
@given(st.lists(st.sampled_from(PARTS), max_size=25).map("".join))
def test_any_text_of_what_templates_are_made_of(template: str) -> None:
    renders_or_is_refused(template)


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_actions_stays_as_it_is(text: str) -> None:
    assert render(text, DATA) == text


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(st.lists(texts, min_size=1, max_size=4), st.integers(0, 8))
def test_steps_written_as_yaml_are_the_same_steps_again(commands: list[str], depth: int) -> None:
    steps = [
        {"name": text, "run": {"command": text, "container": {"image": "a", "password": text}}} for text in commands
    ]
    steps = [
        step | {"run": step["run"] | {"container": step["run"]["container"] | {"apptainer": True}}} for step in steps
    ]
    job = from_dict({"resources": {"tasks": 1, "cpusPerTask": 1, "memPerCpu": 1, "gpus": 0}, "steps": steps})
    data = Record("data", {"Steps": template_data(job.steps, with_secrets=True)}, {})
    pad = "".join(f"{' ' * level}a{level}:\n" for level in range(depth))
    printed = render(f"{pad}{' ' * depth}steps: {{{{- .Steps | toYaml | nindent {depth} }}}}", data)
    found = yaml.safe_load(printed)
    for level in range(depth):
        found = found[f"a{level}"]
    assert found["steps"] == job.to_dict()["steps"]
