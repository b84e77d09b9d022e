"""What Redis holds, seen from outside with a client of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from events import topology
from events.keys import Keys

if TYPE_CHECKING:
    from redis import Redis

KEYS: Final = Keys()
WORK: Final = tuple(name for name in topology.STREAMS if name not in topology.PUBLIC)
# One script, so that the picture is of one moment.
_LOOK: Final = """
local out = { {}, {}, {}, {} }
for _, name in ipairs(cjson.decode(ARGV[1])) do
  local key = 'erni:' .. name
  local info = redis.pcall('XINFO', 'STREAM', key)
  if not info.err then
    local length, added = 0, 0
    for i = 1, #info, 2 do
      if info[i] == 'length' then length = info[i + 1] end
      if info[i] == 'entries-added' then added = info[i + 1] end
    end
    local pending, consumers = 0, {}
    for _, g in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      for i = 1, #g, 2 do
        if g[i] == 'pending' then pending = pending + g[i + 1] end
        if g[i] == 'name' then
          local known = redis.call('XINFO', 'CONSUMERS', key, g[i + 1])
          for _, c in ipairs(known) do consumers[#consumers + 1] = c[2] end
        end
      end
    end
    out[1][#out[1] + 1] = { name, length, added, pending, consumers }
  end
end
for _, agent in ipairs(cjson.decode(ARGV[2])) do
  local dead = redis.pcall('XINFO', 'STREAM', 'erni:dead:' .. agent)
  out[2][#out[2] + 1] = { agent, dead.err and 0 or redis.call('XLEN', 'erni:dead:' .. agent),
    redis.call('ZCARD', 'erni:delayed:' .. agent), redis.call('HKEYS', 'erni:beats:' .. agent),
    redis.call('HKEYS', 'erni:processes:' .. agent) }
end
return out
"""


class StreamState(msgspec.Struct, frozen=True):
    """One stream."""

    length: int = 0
    added: int = 0
    """Entries ever added."""
    pending: int = 0
    consumers: frozenset[str] = frozenset()


class AgentState(msgspec.Struct, frozen=True):
    """What belongs to one agent beside its streams."""

    dead: int
    delayed: int
    beats: frozenset[str]
    processes: frozenset[str]


class State(msgspec.Struct, frozen=True):
    """All of it, at one moment."""

    streams: Mapping[str, StreamState]
    agents: Mapping[str, AgentState]

    def added(self, name: str) -> int:
        """Entries ever added to a stream."""
        return self.streams[name].added if name in self.streams else 0

    def waiting(self) -> int:
        """Entries that an agent has still to end."""
        return sum(self.streams[name].length for name in WORK if name in self.streams)

    def names_of(self, agent: str) -> frozenset[str]:
        """Every consumer that an agent's groups, beats or records name."""
        reads = topology.stage_of(agent).streams
        owners = [self.streams[name].consumers for name in reads if name in self.streams]
        return frozenset().union(*owners, self.agents[agent].beats, self.agents[agent].processes)


def look(redis: Redis) -> State:
    """Look at everything at once."""
    call: Any = redis.eval
    streams, agents = call(_LOOK, 0, _json(list(topology.STREAMS)), _json(list(topology.AGENTS)))[:2]
    return State(
        streams={
            name.decode(): StreamState(length, added, pending, _texts(consumers))
            for name, length, added, pending, consumers in streams
        },
        agents={
            agent.decode(): AgentState(dead, delayed, _texts(beats), _texts(processes))
            for agent, dead, delayed, beats, processes in agents
        },
    )


def entries_since(redis: Redis, name: str, count: int) -> list[dict[bytes, bytes]]:
    """The last `count` entries of a stream, oldest first."""
    call: Any = redis.xrevrange
    return [fields for _, fields in reversed(call(KEYS.stream(name), count=count))] if count else []


def _texts(names: list[bytes]) -> frozenset[str]:
    return frozenset(name.decode() for name in names)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
