"""What the daemon refuses of a job, whatever came over the wire."""

import pytest

from topod.adapters.docker_spec import checked_image
from topod.errors import JobRejectedError, UsageError
from topod.model.job import JobSpec
from topod.shell.checks import check_image


def test_an_image_whose_name_is_a_way_through_the_engines_url_gets_no_further() -> None:
    spec = JobSpec(name="t", command=("true",), image="lab:5000/../../containers/1")
    with pytest.raises(UsageError, match=r"^not the name of an image: 'lab:5000/"):
        check_image(spec)
    with pytest.raises(JobRejectedError, match=r"^not the name of an image: 'lab:5000/"):
        checked_image(spec)
