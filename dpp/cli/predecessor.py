"""``download-pipeline-processor``: the command line of dpp's predecessor."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, Never

import click

from dpp.cli.entry import enter
from dpp.errors import SIGNAL_EXIT
from dpp.plugins.steps import import_class
from dpp.predecessor import ProcessingPipeline
from dpp.report.summary import render


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--files", required=True, help="JSON list of files, each with a url; or JSON Lines, CSV or a text file of URLs.")
@click.option("--pre-processor", help="MODULE:CLASS of a pre-processor.")
@click.option("--processor", help="MODULE:CLASS of a processor.  [default: size and SHA-256 digest]")
@click.option("--post-processor", help="MODULE:CLASS of a post-processor.")
@click.option("--processing-limit", type=click.IntRange(min=1), default=3, show_default=True, help="Maximum files processed at once.")
@click.option("--download-queue-size", type=click.IntRange(min=1), default=10, show_default=True, help="Maximum downloaded files waiting.")
@click.option(
    "--pre-processing-queue-size", type=click.IntRange(min=1), default=10, show_default=True, help="Maximum pre-processed files waiting."
)
@click.option("--download-cache", help="Folder that keeps downloads and results.  [default: $CACHE_DIR, or a temporary folder]")
@click.option("--simulate-downloads", is_flag=True, help="Download nothing: sleep 1 to 3 s per file, or not with PIPELINE_NO_SLEEP set.")
@click.option("--debug", is_flag=True, help="Write detailed logs with thread names.")
@click.option("--log-file", default="", help="Also append the log to this file.")
def download_pipeline_processor(
    files: str, pre_processor: str | None, processor: str | None, post_processor: str | None, **given: Any
) -> None:
    """Download, pre-process, process and post-process FILES in one process."""
    references = {"pre_processor": pre_processor, "processor": processor, "post_processor": post_processor}
    classes: dict[str, Any] = {
        f"{kind}_class": import_class(kind.replace("_", "-"), reference) for kind, reference in references.items() if reference
    }
    pipeline, terminations = ProcessingPipeline(**classes, **given), list[int]()

    def interrupt(number: int, _frame: FrameType | None) -> Never:
        terminations.append(number)
        raise KeyboardInterrupt

    # These signals end a run as Ctrl-C does, with the summary, but with exit codes of their own.
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
    code = pipeline.run(files)
    assert pipeline.summary is not None
    click.echo(render(pipeline.summary))
    sys.exit(SIGNAL_EXIT + terminations[0] if terminations else code)


def predecessor_main(arguments: list[str] | None = None) -> None:
    """Run the command line, then exit with the exit code of the run."""
    enter(download_pipeline_processor, "download-pipeline-processor", arguments)
