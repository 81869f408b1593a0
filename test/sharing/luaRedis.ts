/**
 * A Redis in this process: the commands that the store sends, and its script in Lua 5.1, the version of Redis.
 * `packages/redis/test/store.system.test.ts` shows that it answers like a real server.
 */
import * as Effect from "effect/Effect"
import { type Store, StoreError } from "floodgate/BudgetStore"
import { createHash } from "node:crypto"
import { Lua } from "wasmoon-lua5.1"
import { make as makeStore } from "../../packages/redis/src/store.ts"

/** Hashes in Lua tables. `false` stands for nil in a reply, as in Redis. The state can be copied and restored. */
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
local isReadOnly = false
function setReadOnly(flag) isReadOnly = flag == 1 end
function commands.HSET(key, ...)
  if isReadOnly then error("READONLY You can't write against a read only replica.", 0) end
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

-- How many values a reply has, and the first four.
local function answer(reply)
  if type(reply) == 'table' then return #reply, reply[1], reply[2], reply[3], reply[4] end
  return 1, reply
end
local scripts = {}
local function run(sha, count, key, ...)
  if count ~= '1' then error('ERR this server knows scripts with one key, not ' .. count, 0) end
  purge(key)
  KEYS, ARGV = { key }, {...}
  return answer(scripts[sha]())
end
function serve(time, name, first, ...)
  now = time
  if name ~= 'EVALSHA' then
    purge(first)
    return answer(commands[name](first, ...))
  end
  if not scripts[first] then error('NOSCRIPT No matching script. Please use EVAL.', 0) end
  return run(first, ...)
end
function eval(time, sha, source, ...)
  now, scripts[sha] = time, assert(loadstring(source))
  return run(sha, ...)
end
function forget() scripts = {} end
function reset() db, ends, scripts, snapshots, isReadOnly = {}, {}, {}, {}, false end
`

export interface LuaRedis {
  /** Its clock, in milliseconds. */
  now: () => number
  /** The reply to a command. Throws what a server would say where it does not know a script. */
  readonly send: (words: ReadonlyArray<string>) => unknown
  /** A copy of everything, and what puts it back. */
  readonly snapshot: () => () => void
  readonly wipe: () => void
  /** Whether it refuses what writes, as a replica does, or a server without memory. */
  readonly setReadOnly: (isReadOnly: boolean) => void
  /** Knows no script any more, as a server that takes the place of another. */
  readonly forget: () => void
  /** A server that has just started. */
  readonly reset: () => void
}

/** Calls a function of Lua, and gives its first five results. Throws what it throws. */
type Call = (name: string, ...words: ReadonlyArray<string | number>) => ReadonlyArray<string | number | null>

/** The C interface of Lua, as far as it is used here. Texts are pointers to bytes. */
interface Api {
  readonly HEAPU8: Uint8Array
  readonly _malloc: (size: number) => number
  readonly _free: (pointer: number) => void
  readonly _lua_getfield: (lua: number, index: number, name: number) => void
  readonly _lua_objlen: (lua: number, index: number) => number
  readonly _lua_pcall: (lua: number, words: number, results: number, handler: number) => number
  readonly _lua_pushlstring: (lua: number, text: number, length: number) => void
  readonly _lua_pushnumber: (lua: number, value: number) => void
  readonly _lua_settop: (lua: number, index: number) => void
  readonly _lua_tolstring: (lua: number, index: number, length: number) => number
  readonly _lua_tonumber: (lua: number, index: number) => number
  readonly _lua_type: (lua: number, index: number) => number
}

const globals = -10_002
const results = 5
const isNumber = 3
const isString = 4

/**
 * Calls through the C interface, with one buffer for all texts. The package's own way copies each text byte by byte, and
 * leaves all results on the stack of Lua, which its collector walks through again and again.
 */
const caller = (lua: number, api: Api): Call => {
  let memory: Buffer = Buffer.alloc(0)
  let buffer = 0
  let size = 0
  const write = (text: string): number => {
    // A byte behind it ends a name.
    if (3 * text.length >= size) {
      api._free(buffer)
      size = 6 * text.length + 1
      buffer = api._malloc(size)
    }
    // Memory that has grown is another one.
    if (memory.buffer !== api.HEAPU8.buffer) memory = Buffer.from(api.HEAPU8.buffer)
    const length = memory.write(text, buffer)
    memory[buffer + length] = 0
    return length
  }
  const read = (index: number): string | number | null => {
    const type = api._lua_type(lua, index)
    if (type === isNumber) return api._lua_tonumber(lua, index)
    // `false` stands for nil in a reply, as in Redis.
    if (type !== isString) return null
    const at = api._lua_tolstring(lua, index, 0)
    return Buffer.from(api.HEAPU8.buffer, at, api._lua_objlen(lua, index)).toString()
  }
  return (name, ...words) => {
    write(name)
    api._lua_getfield(lua, globals, buffer)
    for (const word of words) {
      if (typeof word === "number") api._lua_pushnumber(lua, word)
      else {
        const length = write(word)
        api._lua_pushlstring(lua, buffer, length)
      }
    }
    const hasFailed = api._lua_pcall(lua, words.length, results, 0) !== 0
    const values = hasFailed ? [read(1)] : Array.from({ length: results }, (_, n) => read(n + 1))
    api._lua_settop(lua, 0)
    if (hasFailed) throw new Error(String(values[0]))
    return values
  }
}

const toReply = ([count, ...values]: ReadonlyArray<unknown>): unknown =>
  count === 1 ? values[0] : values.slice(0, count as number)

export const make = async (): Promise<LuaRedis> => {
  const lua = await Lua.create()
  lua.doStringSync(source)
  const call = caller(lua.global.address, lua.luaApi.module as unknown as Api)
  const server: LuaRedis = {
    now: () => 0,
    send: ([name = "", first = "", ...words]) => {
      if (name !== "EVAL") return toReply(call("serve", server.now(), name, first, ...words))
      const sha = createHash("sha1").update(first).digest("hex")
      return toReply(call("eval", server.now(), sha, first, ...words))
    },
    snapshot: () => {
      const number = call("snapshot")[0]!
      return () => void call("restore", number)
    },
    wipe: () => void call("wipe"),
    setReadOnly: (isReadOnly) => void call("setReadOnly", isReadOnly ? 1 : 0),
    forget: () => void call("forget"),
    reset: () => void call("reset")
  }
  return server
}

/** The client of `@floodgate/redis` on it. */
export const store = (prefix: string, redis: LuaRedis): Store =>
  makeStore(prefix, (_, words) =>
    Effect.try({ try: () => redis.send(words), catch: (cause) => new StoreError({ cause }) })
  )
