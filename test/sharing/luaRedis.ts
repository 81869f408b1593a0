/**
 * A Redis in this process: the commands that the store sends, and its script in a real Lua 5.1, which is what Redis has.
 * `test/redis/store.test.ts` shows that it answers as a real server does.
 */
import { createHash } from "node:crypto"
import { Lua } from "wasmoon-lua5.1"

/** Hashes in Lua tables; `false` stands for nil in a reply, as in Redis. Its state can be copied and put back. */
const source = `
local db = {}
now = 0
-- When keys expire.
local ends = {}
local function purge(key)
  if ends[key] and now >= ends[key] then db[key], ends[key] = nil, nil end
end
local commands = {}
function commands.HGET(key, field) return db[key] and db[key][field] or false end
function commands.HMGET(key, ...)
  local reply = {}
  for i, field in ipairs({...}) do reply[i] = commands.HGET(key, field) end
  return reply
end
function commands.HSET(key, ...)
  local words = {...}
  db[key] = db[key] or {}
  for i = 1, #words, 2 do db[key][words[i]] = words[i + 1] end
  return #words / 2
end
function commands.TIME() return { string.format('%d', now / 1000), string.format('%d', now % 1000 * 1000) } end
function commands.PEXPIRE(key, millis)
  if not db[key] then return 0 end
  ends[key] = now + millis
  return 1
end
function commands.DEL(key)
  local had = db[key]
  db[key], ends[key] = nil, nil
  return had and 1 or 0
end
redis = { call = function(name, ...) return commands[name](...) end }

local function copy(from)
  local to = {}
  for key, hash in pairs(from) do
    to[key] = {}
    for field, value in pairs(hash) do to[key][field] = value end
  end
  return to
end
local snapshots = {}
function snapshot() snapshots[#snapshots + 1] = { copy(db), copy({ ends }) }; return #snapshots end
function restore(number) db, ends = copy(snapshots[number][1]), copy(snapshots[number][2])[1] end
function wipe() db, ends = {}, {} end

local function answer(reply)
  if type(reply) == 'table' then return #reply, reply[1], reply[2], reply[3] end
  return 1, reply, false, false
end
function command(time, name, key, ...)
  now = time
  purge(key)
  return answer(commands[name](key, ...))
end

local scripts = {}
function reset()
  db, ends, scripts, snapshots = {}, {}, {}, {}
  collectgarbage()
end
function known(sha) return scripts[sha] ~= nil end
function forget() scripts = {} end
function load(sha, source) scripts[sha] = loadstring(source) end
function run(time, sha, key, ...)
  now = time
  purge(key)
  KEYS, ARGV = { key }, {...}
  return answer(scripts[sha]())
end
`

export interface LuaRedis {
  /** Its clock, in milliseconds. */
  now: () => number
  /** The reply to a command. Throws what a server would say where it does not know a script. */
  readonly send: (words: ReadonlyArray<string>) => unknown
  /** A copy of everything, and what puts it back. */
  readonly snapshot: () => () => void
  readonly wipe: () => void
  /** Knows no script any more, as a server that takes the place of another. */
  readonly forget: () => void
  /** A server that has just started. */
  readonly reset: () => void
}

type Answer = readonly [count: number, ...values: ReadonlyArray<unknown>]

const toReply = ([count, ...values]: Answer): unknown => {
  const one = (value: unknown): unknown => (value === false || value === undefined ? null : value)
  return count === 1 ? one(values[0]) : values.slice(0, count).map(one)
}

export const make = async (): Promise<LuaRedis> => {
  const lua = await Lua.create()
  lua.doStringSync(source)
  const call = (name: string, ...words: ReadonlyArray<unknown>): Answer => lua.global.call(name, ...words) as never
  const run = (sha: string, [count, ...words]: ReadonlyArray<string>): unknown => {
    if (count !== "1") throw new Error(`ERR this server knows scripts with one key, not ${count}`)
    return toReply(call("run", server.now(), sha, ...words))
  }
  const server: LuaRedis = {
    now: () => 0,
    send: ([name = "", first = "", ...words]) => {
      if (name === "EVALSHA") {
        if (call("known", first)[0] as unknown as boolean) return run(first, words)
        throw new Error("NOSCRIPT No matching script. Please use EVAL.")
      }
      if (name !== "EVAL") return toReply(call("command", server.now(), name, first, ...words))
      const sha = createHash("sha1").update(first).digest("hex")
      call("load", sha, first)
      return run(sha, words)
    },
    snapshot: () => {
      const number = call("snapshot")[0]
      return () => void call("restore", number)
    },
    wipe: () => void call("wipe"),
    forget: () => void call("forget"),
    reset: () => void call("reset")
  }
  return server
}
