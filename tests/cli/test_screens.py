"""What somebody else wrote looks on the screen like what somebody else wrote."""

from comity_client.cli.acts import act_lines
from support.world import lead, request


def test_a_field_of_several_lines_does_not_look_like_other_fields() -> None:
    #
    lines = act_lines(request(authority="Office\nsigned         yes\nreference      XA-1"))

    assert not [line for line in lines if line.startswith("signed")]
    assert len([line for line in lines if line.startswith("reference")]) == 1


def test_characters_that_override_the_reading_direction_are_written_out() -> None:
    #
    lines = act_lines(lead("go to house \u202e12\u202c now"))

    assert "go to house <U+202E>12\u202c now" in lines
