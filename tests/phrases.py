"""Phrases that must not come back, each with the words to use instead; ``voice.py`` looks for them."""

from __future__ import annotations

from typing import NamedTuple


class Phrase(NamedTuple):
    """A phrase to avoid.

    Args:
        pattern: matches it, in any case; texts are matched with single spaces between their words.
        better: the words to use instead.
        examples: texts with it, separated by ``|``.
    """

    pattern: str
    better: str
    examples: str


UNITS = "GPU|core|node|trial|worker|rank|report|column|entry|step|second|system|device|slot|process|channel"
COUNTED = (
    "one|worker|rank|slot|core|row|line|byte|value|point|GPU|file|daemon|fork server|page|call|trial|message"
)

#: Pattern, better words, examples.
PHRASES = (
    # Pictures instead of the words of the field.
    Phrase(
        r"\b(go|goes|going|gone|went) on (with|where|from)\b",
        "resume, continue",
        "the sweep cannot be gone on with|it goes on where it stopped|going on from its checkpoints",
    ),
    Phrase(r"\bgot over\b", "recovered from", "how a lost rank is got over"),
    Phrase(r"\bdies? with (whom|what|which)\b", "process lifetimes", "who dies with whom"),
    Phrase(r"\bthe way of a trial\b", "life of a trial", "the way of a trial"),
    Phrase(r"\brooms (of|and) (the|floors)\b|\bthrough the rooms\b", "modules", "the rooms of the package"),
    Phrase(r"\bwithout a word\b", "without reporting an end", "its run has ended without a word"),
    Phrase(
        r"\b(a|the|its|their) first word\b(?! of a line)", "first message", "until a first word of the rank"
    ),
    Phrase(
        r"\bat work (on|in|here|there)\b",
        "active, running",
        "nobody is at work on them: run again|if no other is at work on it",
    ),
    Phrase(r"\bheld up\b", "stalled", "whoever was held up may have been given up"),
    Phrase(
        r"\b(been|was|were|is) given up\b(?! by)",
        "declared dead, abandoned",
        "whoever was held up may have been given up",
    ),
    Phrase(
        r"\bwhoever\b",
        "the rank, run or process that ...",
        "whoever was held up may have been given up",
    ),
    Phrase(
        r"\bthe word of\b|\bworth nothing\b",
        "ignore messages from ...",
        "the word of a former master is worth nothing",
    ),
    Phrase(
        r"\b(hear|hears|heard|hearing) (of|from|nothing)\b",
        "receive, a message from",
        "workers hear of it|nothing is heard from it",
    ),
    Phrase(
        r"\bnobody'?s\b|\bnobody (is|asks|hears|tells|waits|knows)\b",
        "no rank, no run; or unknown",
        "nobody's silence|nobody is at work on them|nobody knows how long",
    ),
    Phrase(r"\bhow-?manieth\b", "its position among ...", "the how-manieth trial it is"),
    Phrase(r"\bto be had\b", "available", "were not to be had"),
    Phrase(r"\bcosts? (no|nobody|only|itself)\b", "never loses; affects only", "costs no result"),
    Phrase(
        r"\bown words\b|'s words\b|\bits words\b",
        "the output of ..., its message",
        "PBS's own words|shown in PJM's words|could not start; its words:",
    ),
    Phrase(
        r"\bfor (lost|dead|good)\b",
        "declared lost; permanently",
        "given up for lost|the last run has ended for good",
    ),
    Phrase(r"\blet(s|ting)? go of\b", "release", "all ranks have let go of it"),
    Phrase(r"\bpolite(ly)?\b", "clean", "a polite stop"),
    Phrase(
        r"\b(end|stop|exit|return|leave|close|finish)(s|ed|ped|ping|ing)?"
        r" (it |the sweep |them |a running sweep )?in order\b(?! (to|of))",
        "cleanly",
        "end a running sweep in order|the sweep stops in order before that|end it in order",
    ),
    # The syntax of a translation.
    Phrase(r"\bwhat (was|is) around\b", "environment", "What was around"),
    Phrase(r"\bwhat \S+ can be told\b", "options", "What ResNet50 can be told:"),
    Phrase(
        r"\ball that (the|a|an|your) \w+ (must|has to|needs to)\b",
        "requirements",
        "All that the machine must have is",
    ),
    Phrase(r"\bwhat stands (here|in|there)\b", "say what it is", "What stands here as a command works"),
    Phrase(r"\bas it is written\b", "as shown", "works as it is written, but for the names"),
    Phrase(r"\bbut for the\b", "except for", "works as it is written, but for the names"),
    Phrase(r"\bthat (is|are) meant\b", "literal", "Braces that are meant are doubled"),
    Phrase(
        r"\bthe batch system left visible\b",
        "visible devices",
        "what the batch system left visible is respected",
    ),
    Phrase(r"\ba typed\b", "mpirun called by hand", "A typed `mpirun ...` does too"),
    Phrase(r"\bhas for itself\b", "node-local", "which every node of slurm has for itself"),
    Phrase(
        r"\bdoes not have your login'?s\b",
        "does not inherit your login environment",
        "a job does not have your login's",
    ),
    Phrase(
        r"\b(is|are) no (duration|name|number|metric|record|text|list|date|time limit|size|key)\b",
        "is not a valid ...",
        "is no duration|is no name for a metric",
    ),
    Phrase(r"\bis there(?=$|[;.,:)])", "exists", "slow.h5.stop is there; it stops"),
    Phrase(r"\bis (fine|content)(?=$|[;.,])", "OK", "three.toml: three is fine"),
    Phrase(
        r"\b(allowed|possible) any ?more\b",
        "limit reached",
        "starting them again is not allowed any more",
    ),
    Phrase(
        r"\balthough there was time\b|\btime enough\b|\bwhat should start\b",
        "within N min",
        "the ranks have not begun although there was time enough; ending what should start them",
    ),
    Phrase(
        r"\bof the complete ones\b",
        "N completed trials have no ...",
        "7 of the complete ones without loss: it is missing, NaN or infinite",
    ),
    Phrase(
        r"\bfits? into the memory\b|\bthe last (?!position)\S+ that fits\b",
        "largest ... that fits in memory",
        "the last batch_size that fits into the memory: 640",
    ),
    Phrase(
        r"\brun it again to\b|: run again\b",
        "run the same command to resume",
        "run it again to go on|nobody is at work on them: run again",
    ),
    Phrase(
        r"\bnot known before\b|\bwould bound\b",
        "unknown until ...; for an upper bound",
        "not known before three trials were measured; 'timeout' would bound it",
    ),
    Phrase(
        r"\ba picture, elsewhere\b|\bwhenever something has changed\b",
        "live view; one line per change",
        "On a terminal a picture, elsewhere a line whenever something has changed",
    ),
    Phrase(
        r"\bneeds nothing else\b|\bcan be mailed\b",
        "self-contained",
        "It needs nothing else: it can be mailed",
    ),
    Phrase(
        r"\bhosts? a worker\b|\bwould idle\b",
        "run trials too; would be idle",
        "whether rank 0 hosts a worker (default: when a device would idle otherwise)",
    ),
    Phrase(
        r"\bor any other number\b|\bgive each the same\b",
        "say what each job runs",
        "K or any other number: give each the same command",
    ),
    Phrase(r"\banew\b", "again", "is shared anew"),
    Phrase(
        r"\breads the same\b", "is unchanged", "members share others, though the sweep file reads the same"
    ),
    Phrase(r"\b\d(\.\d+)? times as (fast|large|long|many)\b", "1.92x faster", "1.92 times as fast"),
    Phrase(r"\bloss mean\b", "mean loss", "loss mean by batch size"),
    Phrase(
        rf"\b({COUNTED})s? an? ({UNITS})\b",
        "per GPU, per core, ...",
        "one worker a GPU, or one a core|a page a system|a row a trial|two values a channel",
    ),
    Phrase(
        r"\bagain and again\b",
        "repeatedly; repeatable",
        "may be given again and again",
    ),
    Phrase(r"\bnow and then\b", "periodically, sometimes", "now and then a run writes the file"),
    Phrase(r"\bin the place of\b", "replace X with Y", "put your group in the place of GROUP"),
    Phrase(
        r"\bfor so (long|many)\b|\bfirst so many\b|\bso many (launchers|trials)\b",
        "for that long; that many",
        "reports nothing for so long|when its first so many trials fail",
    ),
    Phrase(
        r"\bcomes? along\b|\bgo(es)? along\b|\btakes? \S+ along\b",
        "ships with; is passed on",
        "Two sites come along|all variables go along|SIGTERM takes mpirun along",
    ),
    Phrase(
        r"(^|[.;:] )should (it|they|one|a|the)\b",
        "if",
        "Should it be lost, another takes over",
    ),
)

#: Of the help of an option, an argument or a command.
HELP_PHRASES = (
    Phrase(
        r"^of (the|a|that|all|its)\b",
        "a noun phrase: name of the sweep",
        "of the sweep|of the trial|of that (default: the sweep's)",
    ),
    Phrase(r"^for programs\b", "print JSON", "for programs"),
    Phrase(r"^how (many|often|much)\b", "number of ...", "how many trials (default: 5)"),
    Phrase(r"^whether\b", "an imperative", "whether rank 0 hosts a worker"),
    Phrase(r"\bof a node\b", "per node", "GPUs of a node"),
)
