"""Values in shell lines, judged by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beads.quoting import DOUBT, PLACEHOLDER, spots
from beads.template import Misplaced, Value, fill

SHELLS = [shell for shell in ("sh", "bash") if shutil.which(shell)]

_values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.text(
    "'\"`$(){}\\\n\t #;&|<>*?[]~=!aEOF1-", max_size=12
)


def said(shell: str, line: str) -> str:
    done = subprocess.run([shell, "-c", line], capture_output=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, f"{line!r}: {done.stderr!r}"
    return done.stdout.decode()


def where(line: str) -> list[str]:
    return [spot.where for spot in spots(line)]


@settings(max_examples=150)
@given(_values)
def test_a_value_is_one_word_and_means_itself(value: str) -> None:
    assert said("sh", fill("printf %s {{x}}", "run", {"x": value})) == value


# Each prints what the placeholder stands for and nothing else.
LINES = [
    "printf %s {{x}}",
    "printf %s%s '' {{ x }}",
    "printf '%s' {{x}} # it's a comment\n",
    "# it's a comment\nprintf %s {{x}}",
    "printf %s a\\'b >/dev/null; printf %s {{x}}",
    'v={{x}}; printf %s "$v"',
    "v=$(printf '%s.' {{x}}); printf %s \"${v%.}\"",
    'true "$(echo \'a b\' "c")" "${HOME:-x}" $((1 + (2))); printf %s {{x}}',
    "cat <<EOF >/dev/null\nit's \"one\nEOF\nprintf %s {{x}}",
    "cat <<-'EOF' >/dev/null\n\tit's `one\n\tEOF\nprintf %s {{x}}",
    "if true; then (printf %s {{x}}); fi",
    "case a in a) printf %s {{x}};; esac",
    'f() { printf %s "$1"; }; f {{x}}',
    "printf %s \\\n  {{x}}",
    "printf %s {{x}}>&1",
    'for one in {{x}}; do printf %s "$one"; done',
    "echo a#'b' >/dev/null; printf %s {{x}}",
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", LINES)
@settings(max_examples=12)
@given(_values)
def test_wherever_it_may_stand_it_means_itself(shell: str, line: str, value: str) -> None:
    assert where(line) == [""]
    # What `$(…)` ends in is cut by the shell.
    assert said(shell, fill(line, "run", {"x": value})) == value


@pytest.mark.parametrize(
    "line,place",
    [
        ("echo '{{x}}'", "inside single quotes"),
        ('echo "{{x}}"', "inside double quotes"),
        ('echo "a\\"{{x}}"', "inside double quotes"),
        ("echo `echo {{x}}`", "inside backquotes"),
        ('echo "$(echo {{x}})"', "inside double quotes"),
        ("echo \"$(echo '{{x}}')\"", "inside single quotes"),
        ("echo ${v:-{{x}}}", "inside ${…}"),
        ("echo $(({{x}} + 1))", "inside $((…))"),
        ("true # {{x}}", "in a comment"),
        ("echo \\{{x}}", "after a backslash"),
        ("echo ${{x}}", "after a $"),
        ("cat <<END\n{{x}}\nEND\n", "inside a here-document"),
        ("cat <<'END'\n{{x}}\nEND\n", "inside a here-document"),
        ("cat <<E'N'D\n{{x}}\nEND\n", DOUBT),
        ("cat <<END\n$(echo\n)\nEND\necho {{x}}", DOUBT),
        ('echo "$(case a in a) echo b;; esac)" {{x}}', DOUBT),
        ("echo $'it\\'s' {{x}}", DOUBT),
        ("((1)); echo {{x}}", DOUBT),
        ("echo $[1] {{x}}", DOUBT),
        ("cat <<<a {{x}}", DOUBT),
        ("cat <<END 'a\nb' {{x}}\nEND\n", DOUBT),
        ("echo ${v:-'}'} {{x}}", DOUBT),
    ],
)
def test_where_something_around_it_has_a_say_only_a_plain_word_may_stand(line: str, place: str) -> None:
    assert where(line) == [place]
    with pytest.raises(Misplaced, match="x}} stands"):
        fill(line, "run", {"x": "it's"})


def test_what_has_quotes_around_it_is_told_to_do_without() -> None:
    assert fill('echo "v{{version}}"', "run", {"version": "1.2-rc"}) == 'echo "v1.2-rc"'
    with pytest.raises(Misplaced) as caught:
        fill('echo "{{summary}}"', "run", {"summary": "$(rm -rf .)"})
    assert "{{summary}} stands inside double quotes" in caught.value.problem
    assert caught.value.hint == "Take the quotes away: the value is quoted by itself."


@pytest.mark.parametrize(
    "line", ["cat <<END\n{{x}}\nEND\n", "cat <<END\nE{{x}}\nEND\n", 'cat <<E"N"D\n{{x}}\n', "echo ${{x}}"]
)
def test_where_a_plain_word_would_be_an_end_or_a_variable_nothing_may_stand(line: str) -> None:
    with pytest.raises(Misplaced):
        fill(line, "run", {"x": "END"})


def test_a_number_before_a_redirection_is_not_the_number_of_a_file() -> None:
    assert said("sh", fill("printf '%s\\n' {{x}}>&1", "run", {"x": "2"})) == "2\n"
    assert said("sh", fill("printf '%s\\n' {{x}}{{x}}>&1", "run", {"x": "2"})) == "22\n"


def test_a_list_is_as_many_words() -> None:
    line = fill("printf '<%s>' {{files}}", "run", {"files": ("a b", "it's", "")})
    assert said("sh", line) == "<a b><it's><>"
    assert fill("ls {{files}}", "run", {"files": ()}) == "ls "


def test_a_value_is_not_looked_through_again() -> None:
    assert fill("echo {{x}}", "run", {"x": "{{y}}", "y": "no"}) == "echo '{{y}}'"
    assert fill("{{x}}", "title", {"x": "{{y}}", "y": "no"}) == "{{y}}"


@pytest.mark.parametrize("text", ["{{.Name}}", "{{#if x}}", "{{x.y}}", "{{ x | upper }}", "{{1}}", "{{}}", "{x}"])
def test_the_templates_of_others_are_left_alone(text: str) -> None:
    assert fill(f"echo {text}", "run", {"x": "no", "y": "no"}) == f"echo {text}"


def test_in_a_regular_expression_a_value_matches_itself() -> None:
    assert fill("^{{x}}$", "matches", {"x": "a.b*"}) == r"^a\.b\*$"


def test_elsewhere_it_stands_as_it_is_and_a_list_with_commas_or_as_elements() -> None:
    values: dict[str, Value] = {"x": "it's $HOME", "files": ("a", "b")}
    assert fill("Fix: {{x}}", "title", values) == "Fix: it's $HOME"
    assert fill("In {{files}}.", "goal", values) == "In a, b."
    assert fill(["c", "{{files}}"], "diff", values) == ["c", "a", "b"]
    with pytest.raises(Misplaced, match="files}} is a list") as caught:
        fill([{"file": "{{files}}/x"}], "criteria", values)
    assert caught.value.key == (0, "file")


# Here % is a space and ^ the end of a line.
FRAGMENTS = (
    "' \" ` $( ) ${v:- } $(( )) \\ # ; && |cat ( case%a%in%a) %esac $' $[ ] if%true;then%echo fi echo "
    "<<E^ ^E^ <<'E'^ {{x}} {{x}} {{x}} % % %"
)
_lines = st.lists(st.sampled_from(FRAGMENTS.split(" ")), max_size=12).map("".join)
_hostile = st.sampled_from(
    [
        "$(: >p)",
        "`: >p`",
        "\n: >p\n",
        ";: >p;",
        "'$(: >p)'",
        '"$(: >p)"',
        "'\n: >p #",
        '";: >p;"',
        ")\n: >p\n(",
        "E\n: >p\n",
    ]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_lines.map(lambda line: line.replace("%", " ").replace("^", "\n")), _hostile)
def test_no_value_is_a_command_whatever_is_around_it(tmp_path: Path, line: str, value: str) -> None:
    assert len(spots(line)) == len(PLACEHOLDER.findall(line))
    try:
        filled = fill(line, "run", {"x": value})
    except Misplaced:
        return
    for shell in SHELLS if "{{x}}" in line else ():
        subprocess.run([shell, "-c", filled], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert not (tmp_path / "p").exists(), f"{shell} was made to run something by {filled!r}"
