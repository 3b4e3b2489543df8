"""Settings come from one file and the environment, and a wrong one is a sentence."""

import pytest

from freehold import config
from freehold.app import checks
from freehold.errors import BadConfig


def test_the_defaults_need_no_file(tmp_path):
    """An empty home has the default settings."""
    assert config.load(tmp_path, {}) == config.Settings()


def test_the_file_is_read_and_a_variable_wins_over_it(tmp_path):
    """[server] port in the file, FREEHOLD_SERVER_PORT over it."""
    (tmp_path / "freehold.toml").write_text('seal = "required"\n[server]\nport = 1\nhost = "::1"\n')
    settings = config.load(tmp_path, {"FREEHOLD_SERVER_PORT": "2"})
    assert (settings.server.port, settings.server.host, settings.seal) == (2, "::1", "required")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nprot = 1", "prot"),
        ("[server]\nport = 70000", "server.port"),
        ('[server]\nport = "x"', "server.port"),
        ('seal = "maybe"', "seal"),
        ("server = 3", "server"),
        ("= = =", "freehold.toml"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, named):
    """The message says which setting, the hint says where to look."""
    (tmp_path / "freehold.toml").write_text(text)
    with pytest.raises(BadConfig) as caught:
        config.load(tmp_path, {})
    assert named in caught.value.sentence() and caught.value.hint


def test_a_named_file_must_exist(tmp_path):
    """FREEHOLD_CONFIG that names nothing is an error, not silence."""
    with pytest.raises(BadConfig, match="There is no"):
        config.load(tmp_path, {"FREEHOLD_CONFIG": str(tmp_path / "none.toml")})


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    """A folder in its place, or bytes that are not text."""
    (tmp_path / "freehold.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="cannot be read"):
        config.load(tmp_path, {})


def test_the_home_is_flag_then_variable_then_default(tmp_path):
    """In that order."""
    assert config.home_folder(str(tmp_path), {"FREEHOLD_HOME": "/x"}) == tmp_path
    assert str(config.home_folder(None, {"FREEHOLD_HOME": "/x"})) == "/x"
    assert config.home_folder(None, {}).name == ".freehold"


def test_every_engine_setting_can_be_set_for_one_model():
    """The two tables have the same names, and what is set for the model wins."""
    assert config.ModelSettings.__struct_fields__ == config.EngineSettings.__struct_fields__
    own = config.ModelSettings(slots=2)
    settings = config.Settings(engine=config.EngineSettings(slots=7, context=9), models={"m": own})
    assert (settings.engine_for("m").slots, settings.engine_for("m").context) == (2, 9)
    assert settings.engine_for("other").slots == 7


def test_a_sealed_gateway_takes_no_database_over_the_network():
    """It could not reach it; over a Unix socket it can, and unsealed it may."""
    for url in ("postgresql://me@db.example/x", "postgresql:///x"):
        with pytest.raises(BadConfig, match="over the network"):
            checks.check_database(config.Settings(database=url))
        checks.check_database(config.Settings(database=url, seal="off"))
    checks.check_database(config.Settings(database="postgresql://me@/x?host=/var/run/postgresql"))
    checks.check_database(config.Settings())
