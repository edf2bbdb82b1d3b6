"""The What-if screen: choose what to run, see the plan on the picture of the host, submit it by one key."""

import os
import shlex
import uuid
from collections.abc import Callable
from string import digits
from typing import ClassVar

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from topoctl.render.style import printable
from topod.errors import TopodError
from topod.model.job import JobSpec
from topod.protocol.client import Client
from topod.protocol.codec import ProtocolError
from topod.protocol.jobfile import Origin, build_spec
from topod.protocol.replies import Changes, Jobs, Planned
from topod.protocol.requests import DryRun, Follow, Submit
from topotui.blocks import Block, folded
from topotui.choice import Choice
from topotui.dialogs import Confirm, Help, WhatToRun
from topotui.drawn import Drawn
from topotui.host_pane import LEFT, WIDE
from topotui.live import OLD, only_looks
from topotui.machine import machine_block
from topotui.picture import Picture
from topotui.whatif_text import alternative_of, head, marks_of, places_of, question, reasons
from topotui.wish import FIELDS, TITLES, Wish, shown, turned, typed

HELP = """\
left, right   the choice before or after; a click
up, down      a step more or less; the wheel
0-9           a number: of GPUs, CPUs, the priority
v             the picture, or why: each cost key beside the next best plan's
n             the next best plan on the picture, and back
o             of a plan over several hosts the next one
Escape, q     back"""
HELP_SUBMIT = """
s, Enter      submit it: asks what to run, says what will happen"""
PLAN_SECONDS = 30.0
LOOK_SECONDS = 1.0
FLEET_LOOK_SECONDS = 3.0
"""How often it is looked whether the plan still rests on what is so; a large fleet's takes a while."""


class WhatIf(Screen[None]):
    """Shows what a job would get and whom it would stop."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("left", "choose(-1)", "Choice", key_display="←→"),
        Binding("right,tab", "choose(1)", "Choice", show=False),
        Binding("up,plus", "turn(1)", "Change", key_display="↑↓"),
        Binding("down,minus", "turn(-1)", "Change", show=False),
        Binding("v", "why", "Why"),
        Binding("n", "other", "Next best"),
        Binding("o", "next_host", "Host", show=False),
        *(Binding(digit, f"digit('{digit}')", show=False) for digit in digits),
        Binding("s,enter", "submit", "Submit"),
        Binding("pageup", "page(-1)", "Up", show=False),
        Binding("pagedown", "page(1)", "Down", show=False),
        Binding("escape,q", "leave", "Back", key_display="Esc"),
    ]

    def __init__(
        self,
        connect: Callable[[str], Client],
        *,
        picture: Picture | None,
        seen: Callable[[], object],
        read_only: bool = False,
    ) -> None:
        """`picture`: of the one host that is asked; None: it is a fleet, whose hosts `connect` asks by name.

        `seen` returns what a plan rests on: where that changes, another one is asked for.
        """
        super().__init__()
        self.wish = Wish()
        self.planned: Planned | None = None
        """The answer to `wish`; None: it is under way."""
        self.read_only = read_only
        self._connect = connect
        self._fleet = picture is None
        self._picture = picture or Picture()
        self._seen = seen
        self._known: object = None
        self._field = 0
        self._typing = False
        self._why = False
        self._other = False
        self._host = 0
        self._trouble = ""
        self._away = ""
        self._answered: Wish | None = None
        """What `planned` is the plan of."""
        self._typed = ("", "")
        self._asking: Confirm | None = None
        self._drawn: dict[str, Text] = {}

    @property
    def fields(self) -> tuple[str, ...]:
        """The choices, by name: a host by itself has no `hosts`."""
        return FIELDS if self._fleet else FIELDS[:-1]

    def compose(self) -> ComposeResult:
        yield Static(id="asked", classes="bar", markup=False)
        with Horizontal(id="choices"):
            for name in self.fields:
                yield Choice(name)
        yield Drawn(id="verdict")
        with VerticalScroll(id="answer", can_focus=False), Container(id="plan"):
            yield Drawn(id="planned")
            yield Drawn(id="reasons")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.ask()
        self.set_interval(FLEET_LOOK_SECONDS if self._fleet else LOOK_SECONDS, self._look)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    # --- the plan -----------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for the plan of the present wish."""
        self._known = self._seen()
        self.draw()
        self._ask(self.wish, self._host)

    def _look(self) -> None:
        if self._seen() != self._known:
            self.ask()

    def tell(self, away: str) -> None:
        """Say why nobody answers, and that this is how it was; empty: somebody does, and is asked."""
        before, self._away = self._away, away
        if before and not away:
            self.ask()
        elif before != away:
            self.draw()

    @work(thread=True)
    def _ask(self, wish: Wish, host: int) -> None:
        picture = None
        try:
            with self._connect("") as client:
                reply = client.ask(DryRun(spec=wish.spec(), hosts=wish.hosts), PLAN_SECONDS)
            if not isinstance(reply, Planned):
                raise ProtocolError(f"topod answered with {type(reply).__name__}, not Planned")
            if self._fleet and (plans := places_of(reply)):
                picture = self._picture_of(str(plans[min(host, len(plans) - 1)].get("host")))
        except TopodError as error:
            trouble = f"{error.message}{f'; {error.hint}' if error.hint else ''}"
            self.app.call_from_thread(self.take, wish, None, None, trouble)
        else:
            self.app.call_from_thread(self.take, wish, reply, picture)

    def _picture_of(self, host: str) -> Picture:
        picture = Picture()
        with self._connect(host) as client:
            changes = client.ask(Follow(), PLAN_SECONDS)
        if isinstance(changes, Changes):
            picture.take(changes)
        return picture

    def take(self, wish: Wish, planned: Planned | None, picture: Picture | None, trouble: str = "") -> None:
        """Take in the answer to a wish; it is dropped where there is another wish by now."""
        if wish != self.wish or not self.query("#plan"):
            return
        if planned is None and self._away and wish == self._answered:
            return  # the bar says so; the plan as it was stays
        self._answered = wish if planned is not None else None
        self.planned, self._trouble = planned, trouble
        if self._asking is not None and planned is not None:
            self._asking.say(question(planned, wish, self._typed[1]))
        if self._fleet:
            self._picture = picture or Picture()
        self.draw()

    # --- drawing ------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw what changed."""
        if not self.query("#plan"):
            return
        self.query_one("#asked").set_class(bool(self._away), "away")
        self._put("asked", Text(self._title()))
        for number, name in enumerate(self.fields):
            chosen = number == self._field
            value = shown(self.wish, name)
            text = Text(f"{TITLES.get(name, name)} ").append(
                f"◂{value}▸" if chosen else f" {value} ", "bold reverse" if chosen else "bold"
            )
            self._put(f"choice-{name}", text)
        if self.planned is not None or self._trouble:
            self._draw_plan(self.planned)

    def _draw_plan(self, planned: Planned | None) -> None:
        width = max(40, self.size.width - 2)
        wide = width >= WIDE
        self.query_one("#plan").set_class(wide, "wide")
        self.query_one("#planned").display = (wide or not self._why) and planned is not None
        self.query_one("#reasons").display = (wide or self._why) and planned is not None
        if planned is None:
            self._draw("verdict", folded([(self._trouble, "bold")], width - 2))
            return
        told = head(planned, self.wish, width - 2, at=self._host, other=self._other)
        self._draw("verdict", told)
        left, right = (LEFT, width - LEFT - 3) if wide else (width, width - 2)
        if wide or not self._why:
            plans = places_of(planned)
            plan = plans[min(self._host, len(plans) - 1)] if plans else {}
            plan = (alternative_of(plan) or plan) if self._other else plan
            height = self.size.height - told.height - 3
            marks = marks_of(plan, self._picture.gpus.values())
            if self._picture.topology is not None:
                self._draw("planned", machine_block(self._picture, left, height, marks))
            else:
                self._draw("planned", reasons(planned, left, at=0))
        if wide or self._why:
            self._draw("reasons", reasons(planned, right, at=self._host))

    def _title(self) -> str:
        if self._away:
            return f"What if · {OLD} · {printable(self._away)}"
        host = self._picture.host
        where = "the fleet" if self._fleet else host.name if host is not None else "..."
        words = [f"What if, on {where}{' (emulated)' if host is not None and host.emulated else ''}"]
        words += ["as things are now; nothing is changed"]
        words += ["read-only"] if self.read_only else []
        return " · ".join(words)

    def _draw(self, name: str, block: Block) -> None:
        self.query_one(f"#{name}", Drawn).draw(block)

    def _put(self, name: str, text: Text) -> None:
        if self._drawn.get(name) != text:
            self._drawn[name] = text
            self.query_one(f"#{name}", Static).update(text)

    # --- keys ---------------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        if self.read_only and event.key in ("s", "enter"):
            self.notify(only_looks(self.app), severity="warning")

    def action_digit(self, digit: str) -> None:
        name = self.fields[self._field]
        wish = typed(self.wish, name, digit, more=self._typing, most_gpus=self._most())
        self._typing = True
        self._change(wish)

    def on_choice_picked(self, event: Choice.Picked) -> None:
        self._field, self._typing = self.fields.index(event.name), False
        if event.step:
            self.action_turn(event.step)
        self.draw()

    def action_choose(self, step: int) -> None:
        self._field, self._typing = (self._field + step) % len(self.fields), False
        self.draw()

    def action_turn(self, step: int) -> None:
        self._typing = False
        self._change(turned(self.wish, self.fields[self._field], step, self._most()))

    def action_why(self) -> None:
        self._why = not self._why
        self.draw()

    def action_other(self) -> None:
        plans = places_of(self.planned) if self.planned is not None else []
        if not plans or alternative_of(plans[min(self._host, len(plans) - 1)]) is None:
            self.notify("there is no other plan")
            return
        self._other = not self._other
        self.draw()

    def action_next_host(self) -> None:
        if self.planned is not None and len(plans := places_of(self.planned)) > 1:
            self._host = (self._host + 1) % len(plans)
            self.ask()

    def action_page(self, step: int) -> None:
        room = self.query_one("#answer", VerticalScroll)
        room.scroll_page_down() if step > 0 else room.scroll_page_up()

    async def action_help(self) -> None:
        await self.app.push_screen(Help(HELP if self.read_only else f"{HELP}{HELP_SUBMIT}"))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to submit where that may be."""
        del parameters
        return not (action == "submit" and self.read_only)

    async def action_leave(self) -> None:
        _ = self.dismiss()  # a screen cannot wait for its own end

    def _change(self, wish: Wish) -> None:
        if wish != self.wish:
            self.wish, self._other, self._host = wish, False, 0
            self.ask()

    def _most(self) -> int:
        topology = self._picture.topology
        return len(topology.gpus) if topology is not None and not self._fleet else 99

    # --- submitting ---------------------------------------------------------------------------------------

    async def action_submit(self) -> None:
        if self.read_only:
            self.notify(only_looks(self.app), severity="warning")
        elif self.planned is None:
            self.notify("there is no plan yet", severity="warning")
        elif self.planned.never:
            self.notify(f"it can never run here: {self.planned.reason}", severity="error")
        else:
            host = self._picture.host
            plain = not self._fleet and host is not None and host.runtime == "process"
            await self.app.push_screen(
                WhatToRun(image=not plain, wrong=self._wrong, typed=self._typed), self._named
            )

    def _spec(self, image: str, command: str) -> JobSpec:
        """Return the job that is wished for. Raises `TopodError`, `ValueError`."""
        values: dict[str, object] = {**self.wish.fields()}
        values |= {"command": shlex.split(command)} if command else {}
        values |= {"image": image} if image else {}
        return build_spec(None, Origin(values=values), environ=os.environ)

    def _wrong(self, image: str, command: str) -> str:
        """Return what is wrong with an image and a command; empty: nothing."""
        if not image and not command:
            return "nothing to run: type a command"
        try:
            self._spec(image, command)
        except TopodError as error:
            return error.message
        except ValueError as error:
            return f"command: {error}"
        return ""

    async def _named(self, what: tuple[str, str] | None) -> None:
        if what is None:
            return
        self._typed = what  # whatever comes between, it need not be typed again
        if self.planned is None:
            self.notify(
                f"{self._trouble or 'there is no plan yet'}; what you typed is kept", severity="error"
            )
            return
        wish, (_, command) = self.wish, what
        request = Submit(spec=self._spec(*what), hosts=wish.hosts, token=uuid.uuid4().hex)

        def answered(yes: bool | None) -> None:
            self._asking = None
            if yes:
                self._submit(request)

        self._asking = Confirm(question(self.planned, wish, command))
        await self.app.push_screen(self._asking, answered)

    @work(thread=True)
    def _submit(self, request: Submit) -> None:
        try:
            with self._connect("") as client:
                reply = client.ask(request, PLAN_SECONDS)
        except TopodError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self.app.call_from_thread(self.notify, f"{error.message}{hint}", severity="error")
        else:
            if isinstance(reply, Jobs):
                self.app.call_from_thread(self._submitted, reply)

    def _submitted(self, reply: Jobs) -> None:
        job = reply.jobs[0]
        self.app.notify(f"submitted job {job.id} ({job.name})")
        if self.is_current:
            _ = self.dismiss()
