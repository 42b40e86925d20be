"""Settings of the marks that tell what a result is and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from wanimate.config.base import Option, Settings
from wanimate.config.values import File
from wanimate.errors import InputError, setting

LABEL, HIDDEN, TOLD, SIGNED = "Visible label", "Invisible watermark", "Metadata", "Signature"
"""Headings of `--help`."""

When = Literal["off", "finals"]
LabelKind = Literal["none", "plain", "eu", "china", "eu+china"]
Language = Literal["en", "de", "fr", "es", "it", "nl", "pt", "zh", "ja", "ko"]
Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Oversight = Literal["fully_autonomous", "prompt_guided", "human_validated"]


class MarkSettings(Settings):
    """What is put into and beside results. Guides, mattes and takes are never marked, finals where `when` says so."""

    part: ClassVar[str] = "marks"

    when: Annotated[
        When,
        Option(
            TOLD,
            f"Which results of jobs are marked: none, or those that are finals ({setting('output.final')}).",
            more="Guides, mattes and takes never are.",
            flag="--marks",
        ),
    ] = "finals"
    label: Annotated[
        LabelKind,
        Option(
            LABEL,
            "Text in the picture. plain: small, lower right. eu: with the letters AI, top right, all the time. china: with AI "
            "and 生成, at least 5 % of the short side high, for 3 s.",
        ),
    ] = "none"
    label_language: Annotated[Language, Option(LABEL, "Language of the label.", more="That of `china` is Chinese.")] = (
        "en"
    )
    label_text: Annotated[
        str,
        Option(LABEL, "Another text for the label.", more="It has the words that its rule asks for.", shown="its own"),
    ] = ""  # fmt: skip
    label_place: Annotated[Corner | None, Option(LABEL, "Corner of the label.", shown="the label's own")] = None
    label_seconds: Annotated[
        float | None,
        Field(gt=0),
        Option(LABEL, "Seconds that the label shows, from the first frame.", shown="the label's own", example="3"),
    ] = None
    label_font: Annotated[
        File | None,
        Option(
            LABEL,
            "Font file for the label. Texts in Latin letters and the labels' own in Chinese, Japanese and Korean need none.",
            shown="the packaged one",
        ),
    ] = None
    invisible: Annotated[
        bool,
        Option(HIDDEN, "Mark the frames with an invisible watermark of 32 bits.", flag="--invisible/--no-invisible"),
    ] = True
    invisible_key: Annotated[
        File | None,
        Option(
            HIDDEN,
            "File with the key of the watermark, any bytes.",
            more="What is marked with the public key can be read by anybody.",
            shown="the public key",
        ),
    ] = None
    metadata: Annotated[bool, Option(TOLD, "Write XMP with the digital source type and China's `AIGC` key.")] = True
    producer: Annotated[
        str,
        Field(min_length=1, pattern=r"^[\x20-\x7e]+$"),
        Option(
            TOLD,
            "Who made the result, for XMP and the `AIGC` key.",
            more="In China a number of the producer; printable ASCII.",
            example="Example-Studio",
        ),
    ] = "wanimate"
    id: Annotated[
        str | None,
        Field(pattern=r"^[0-9a-f]{32}$"),
        Option(
            TOLD,
            "Id of the result, which metadata name and the watermark's payload is made of: 32 hexadecimal digits.",
            more="That of an earlier result gives its marks again.",
            shown="a new one",
            flag="--result-id",
        ),
    ] = None
    training: Annotated[bool, Option(TOLD, "Allow training and data mining on the result.")] = False
    oversight: Annotated[
        Oversight,
        Option(TOLD, "How far a person watched over the result, in the words of C2PA."),
    ] = "prompt_guided"
    sign: Annotated[
        bool | None,
        Option(
            SIGNED,
            "Sign the result (C2PA). It needs the extra `c2pa`.",
            shown="on where a certificate is there",
            flag="--sign/--no-sign",
        ),
    ] = None
    certificate: Annotated[
        File | None,
        Option(SIGNED, "Certificates to sign with, leaf first: a PEM file.", shown="those of `wanimate marks init`"),
    ] = None
    private_key: Annotated[
        File | None,
        Option(SIGNED, "Private key of the leaf: a PEM file in PKCS #8.", shown="that of `wanimate marks init`"),
    ] = None
    timestamp: Annotated[
        str,
        Field(pattern=r"^(https?://\S+)?$"),
        Option(
            SIGNED,
            "Address of a time stamp authority (RFC 3161). Signing asks it over the network.",
            shown="none",
            example="http://timestamp.example.com",
        ),
    ] = ""

    @model_validator(mode="after")
    def _in_pairs(self) -> MarkSettings:
        if (self.certificate is None) != (self.private_key is None):
            field, given = ("certificate", self.certificate) if self.certificate else ("private_key", self.private_key)
            raise InputError(
                self.named(field), given, "a certificate and its private key belong together", "Give both."
            )
        return self

    def asked(self, final: bool, watermark: bool) -> MarkSettings | None:
        """What is put into and beside one result; None is nothing.

        Args:
            final: it is one. watermark: the plain label is asked for, which takes can have, too. On a take it comes alone.
        """
        if final and self.when == "finals":
            return self.model_copy(update={"label": "plain"}) if watermark and self.label == "none" else self
        return LABEL_ALONE if watermark else None

    @property
    def whole(self) -> bool:
        """Whether the file is marked as well, not its frames alone."""
        return self.when == "finals"

    def files(self) -> list[Path]:
        """The files that marking reads."""
        named = (self.label_font, self.invisible_key, self.certificate, self.private_key)
        return [path for path in named if path is not None]


LABEL_ALONE = MarkSettings(when="off", label="plain", invisible=False, metadata=False, sign=False)
"""The plain label and nothing else."""
