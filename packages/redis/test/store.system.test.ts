/** The store in a real Redis, with both clients. */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { type Stored, StoreError } from "floodgate/BudgetStore"
import * as FloodgateRedis from "@floodgate/redis"
import { StoreContract } from "floodgate/testing"
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { type AddressInfo, createServer, type Socket } from "node:net"
import { join } from "node:path"
import { BudgetStore } from "../../../src/sharing/port.ts"
import * as Client from "../src/client.ts"
import type { ClientPackage } from "../src/clients.ts"
import { open } from "../src/opening.ts"
import { keyOf, script } from "../src/store.ts"
import * as LuaRedis from "../../../test/sharing/luaRedis.ts"
import { sized } from "../../../test/support/size.ts"
import { mulberry } from "../../../test/support/random.ts"
import * as Clients from "./clients.ts"
import * as Redis from "./server.ts"

const hour = 3_600_000
const first: Stored = { version: "1", value: "one" }

// -----------------------------------------------------------------------------
// Which of the servers at an address is used, when each answers at the moment that a test chooses
// -----------------------------------------------------------------------------

type NodeAnswer = (words: ReadonlyArray<string>) => unknown

/** What a node of a healthy cluster says. */
const node =
  (...others: ReadonlyArray<string>): NodeAnswer =>
  ([command, about]) => {
    if (command === "INFO") return "# Cluster\r\ncluster_enabled:1\r\n"
    if (about === "INFO") return "cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"
    return [[0, 16_383, ...["one", ...others].map((host) => [host, 6_379, `id-${host}`])]]
  }
const singleServer: NodeAnswer = () => "# Cluster\r\ncluster_enabled:0\r\n"
const master = (role = "master") =>
  ((): string => `# Replication\r\nrole:${role}\r\nconnected_slaves:1\r\n`) as NodeAnswer
const sentinel =
  (host: string | null): NodeAnswer =>
  () =>
    host === null ? null : [host, "6379"]

/** Servers by host. One that is left out cannot be reached, and one that is `"hangs"` says nothing. */
const serversOf = (servers: Readonly<Record<string, NodeAnswer | "hangs">>) => {
  const signals = new Map<string, AbortSignal>()
  const clusters: Array<string> = []
  const end = new AbortController()
  const client: ClientPackage = {
    server: async (url, signal) => {
      const { hostname } = new URL(url)
      signals.set(hostname, signal)
      const answer = servers[hostname]
      if (answer === undefined) throw new Error(`connect ECONNREFUSED ${hostname}`)
      return async (words) => (answer === "hangs" ? new Promise<never>(() => {}) : answer(words))
    },
    cluster: async (url) => {
      clusters.push(new URL(url).hostname)
      return { send: async () => "OK", nodes: () => [] }
    }
  }
  const opened = (address: string, known?: ReadonlyArray<string>) => open(client, address, end.signal, known)
  /** The hosts to which a connection is still open. */
  const connected = () => [...signals].filter(([, { aborted }]) => !aborted).map(([host]) => host)
  return { opened, connected, clusters, end }
}

const openingProblemOf = (opening: Promise<unknown>): Promise<string> =>
  opening.then(
    () => assert.fail("it was opened"),
    (error: Error) => error.message
  )

describe("an address of Redis", () => {
  it("of one server keeps its connection until it is closed", async () => {
    const { connected, end, opened } = serversOf({ one: singleServer })
    const { known, send } = await opened("redis://one")
    assert.include(String(await send("key", ["INFO", "cluster"])), "cluster_enabled")
    assert.deepStrictEqual([known, connected()], [[], ["one"]])
    end.abort()
    assert.deepStrictEqual(connected(), [])
  })

  it("of a cluster keeps only the cluster's own connections, and knows all of its nodes", async () => {
    const { clusters, connected, opened } = serversOf({ one: node("two", "three"), two: "hangs" })
    const { known } = await opened("redis://one,two,dead")
    assert.deepStrictEqual(clusters, ["one"])
    assert.deepStrictEqual(known, ["redis://one:6379", "redis://two:6379", "redis://three:6379"])
    assert.deepStrictEqual(connected(), [])
  })

  it("of a cluster is found through the nodes that were found before", async () => {
    const { clusters, opened } = serversOf({ one: "hangs", two: node("two") })
    await opened("redis://one", ["redis://two:6379"])
    assert.deepStrictEqual(clusters, ["two"])
  })

  it("does not use a node that has lost sight of its cluster, but one that sees it", async () => {
    const lost: NodeAnswer = (words) => (words[1] === "INFO" ? "cluster_state:fail\r\n" : node()(words))
    const { clusters, opened } = serversOf({ one: lost, two: node("two") })
    await opened("redis://one,two")
    assert.deepStrictEqual(clusters, ["two"])
    const alone = serversOf({ one: lost })
    assert.match(await openingProblemOf(alone.opened("redis://one")), /^CLUSTERDOWN /)
    assert.deepStrictEqual(alone.connected(), [])
  })

  it("that leads nowhere leaves no connection open, and says what a server said", async () => {
    const denied: NodeAnswer = () => {
      throw new Error("NOPERM the user may not run info")
    }
    const { connected, opened } = serversOf({ two: denied })
    assert.match(await openingProblemOf(opened("redis://dead,two")), /^NOPERM /)
    assert.deepStrictEqual(connected(), [])
    assert.match(await openingProblemOf(serversOf({}).opened("redis://dead,two")), /^connect ECONNREFUSED dead/)
  })

  it("of several servers that are no cluster is refused", async () => {
    const { connected, opened } = serversOf({ one: singleServer, two: singleServer })
    assert.match(await openingProblemOf(opened("redis://one,two")), /would have a budget of its own/)
    assert.deepStrictEqual(connected(), [])
  })

  it("of Sentinels keeps the connections of the one that answers first, and of the master", async () => {
    const { connected, opened } = serversOf({ one: "hangs", two: sentinel("db"), db: master() })
    await opened("redis+sentinel://one,two,dead/gate")
    assert.sameMembers(connected(), ["two", "db"])
  })

  it("of Sentinels is refused while they name a server that is no master, or know none of this name", async () => {
    const replaced = serversOf({ one: sentinel("db"), db: master("slave") })
    assert.match(await openingProblemOf(replaced.opened("redis+sentinel://one/gate")), /^READONLY /)
    assert.deepStrictEqual(replaced.connected(), [])
    const unknown = serversOf({ one: sentinel(null) })
    assert.match(await openingProblemOf(unknown.opened("redis+sentinel://one/gate")), /knows no master named "gate"/)
  })
})

// -----------------------------------------------------------------------------
// Connections
// -----------------------------------------------------------------------------

describe("a connection", () => {
  it.live("stays when a command of an earlier one fails late", () =>
    Effect.gen(function* () {
      const opened: Array<{ readonly signal: AbortSignal; readonly fail: Array<(error: Error) => void> }> = []
      const open: Parameters<typeof Client.connect>[1] = async (_, signal) => {
        const fail: Array<(error: Error) => void> = []
        opened.push({ signal, fail })
        return { send: () => new Promise((_, reject) => fail.push(reject)), nodes: () => [], known: [] }
      }
      const { send } = yield* Client.connect("redis://test", open)
      const command = Effect.forkChild(Effect.exit(send("key", ["GET", "key"])), { startImmediately: true })
      const [early, late] = [yield* command, yield* command]
      const fail = (n: number) => Effect.sync(() => opened[0]!.fail[n]!(new Error("Socket closed")))
      yield* Effect.promise(() => Promise.resolve())
      yield* fail(0)
      yield* Fiber.await(early)
      yield* command
      yield* fail(1)
      yield* Fiber.await(late)
      assert.deepStrictEqual(
        opened.map(({ signal }) => signal.aborted),
        [true, false]
      )
    }).pipe(Effect.scoped)
  )

  it.live("is closed when a command is given up that gets no reply, and the next one opens another", () =>
    Effect.gen(function* () {
      const opened: Array<AbortSignal> = []
      const open: Parameters<typeof Client.connect>[1] = async (_, signal) => {
        opened.push(signal)
        const send = () => (opened.length === 1 ? new Promise<never>(() => {}) : Promise.resolve("PONG"))
        return { send, nodes: () => [], known: [] }
      }
      const { send } = yield* Client.connect("redis://test", open)
      const dead = yield* Effect.forkChild(send("key", ["PING"]), { startImmediately: true })
      yield* Effect.promise(() => Promise.resolve())
      yield* Fiber.interrupt(dead)
      assert.strictEqual(yield* send("key", ["PING"]), "PONG")
      assert.deepStrictEqual(
        opened.map(({ aborted }) => aborted),
        [true, false]
      )
    }).pipe(Effect.scoped)
  )

  /** Whether the connection is dropped if a command fails with an error. */
  const isGivenUp = Effect.fnUntraced(function* (error: Error) {
    const opened: Array<AbortSignal> = []
    const open: Parameters<typeof Client.connect>[1] = async (_, signal) => {
      opened.push(signal)
      return {
        send: () => (opened.length === 1 ? Promise.reject(error) : Promise.resolve("OK")),
        nodes: () => [],
        known: []
      }
    }
    const { send } = yield* Client.connect("redis://test", open)
    yield* Effect.flip(send("key", ["SET", "key", "1"]))
    const next = yield* Effect.exit(send("key", ["SET", "key", "1"]))
    assert.strictEqual(opened[0]!.aborted, opened.length === 2)
    assert.strictEqual(Exit.isSuccess(next), opened.length === 2)
    return opened.length === 2
  }, Effect.scoped)

  it.live("is closed when another server is responsible, so that the next command finds that server", () =>
    Effect.gen(function* () {
      for (const answer of [
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "MOVED 3999 127.0.0.1:6381",
        "NOREPLICAS Not enough good replicas to write."
      ]) {
        assert.isTrue(yield* isGivenUp(new Error(answer)), answer)
      }
    })
  )

  it.live("is closed when it fails, and kept when the server only refuses a command", () =>
    Effect.gen(function* () {
      for (const failure of ["Socket closed unexpectedly", "read ECONNRESET", "Command timed out"]) {
        assert.isTrue(yield* isGivenUp(new Error(failure)), failure)
      }
      for (const answer of ["NOSCRIPT No matching script.", "OOM command not allowed", "WRONGTYPE Operation against"]) {
        assert.isFalse(yield* isGivenUp(new Error(answer)), answer)
      }
    })
  )
})

describe("a key", () => {
  it("exists for any text, also for half of a character", () => {
    const name = "customer \u{1F600}".slice(0, -1)
    assert.isString(keyOf("budget", name))
    assert.notStrictEqual(keyOf("budget", name), keyOf("budget", "customer "))
  })
})

describe.skipIf(Redis.skipped !== undefined)("the store in Redis", () => {
  let server: Redis.Server
  beforeAll(async () => {
    server = await Redis.start()
  })
  afterAll(() => server.stop())

  const commands = (...words: ReadonlyArray<string>) => Effect.promise(() => server.command(...words))

  for (const client of Clients.names) {
    describe(`by the package ${client}`, () => {
      const connect = (prefix: string, url = server.url) => Clients.store(client, url, `${prefix} by ${client}`)
      const placeOf = (prefix: string, name: string) => `${prefix}%20by%20${client}:${name}`

      for (const check of StoreContract.checks) {
        it.live(check.name, () => Effect.suspend(() => check.run(connect("contract"))))
      }

      it.live("lets every value expire", () =>
        Effect.gen(function* () {
          const store = yield* connect("expires")
          yield* store.swap("pool", undefined, first, hour)
          const left = Number(yield* commands("PTTL", placeOf("expires", "pool")))
          assert.isAbove(left, hour - 60_000)
          assert.isAtMost(left, hour)
        }).pipe(Effect.scoped)
      )

      it.live("fails if its key holds something else, and changes nothing", () =>
        Effect.gen(function* () {
          const store = yield* connect("foreign")
          yield* commands("SET", placeOf("foreign", "text"), "x")
          yield* commands("HSET", placeOf("foreign", "half"), "version", "1")
          yield* commands("HSET", placeOf("foreign", "other"), "value", "1")
          for (const name of ["text", "half", "other"]) {
            assert.instanceOf(yield* Effect.flip(store.read(name)), StoreError)
            assert.instanceOf(yield* Effect.flip(store.swap(name, "0", first, hour)), StoreError)
          }
          assert.strictEqual(yield* commands("GET", placeOf("foreign", "text")), "x")
          assert.strictEqual(yield* commands("HLEN", placeOf("foreign", "half")), 1)
        }).pipe(Effect.scoped)
      )

      it.live("needs no second attempt if the server has forgotten the script", () =>
        Effect.gen(function* () {
          const store = yield* connect("forgotten")
          yield* store.swap("pool", undefined, first, hour)
          yield* commands("SCRIPT", "FLUSH")
          const next = { version: "2", value: "two" }
          assert.deepInclude(yield* store.swap("pool", "1", next, hour), next)
        }).pipe(Effect.scoped)
      )

      it.live("reconnects after its connection was cut, and after a restart of the server", () =>
        Effect.gen(function* () {
          const own = yield* Effect.promise(() => Redis.start())
          yield* Effect.addFinalizer(() => Effect.promise(own.stop))
          const store = yield* connect("cut", own.url)
          yield* store.swap("pool", undefined, first, hour)
          yield* Effect.promise(() => own.command("CLIENT", "KILL", "TYPE", "normal"))
          // The command that finds the connection dead may fail; the next one opens another.
          yield* Effect.ignore(store.read("pool"))
          assert.deepInclude(yield* store.read("pool"), first)
          yield* Effect.promise(() => own.restart())
          yield* Effect.ignore(store.read("pool"))
          assert.isUndefined(yield* store.read("pool"))
        }).pipe(Effect.scoped)
      )

      it.live("fails at once if nothing listens", () =>
        Effect.gen(function* () {
          const store = yield* connect("nobody", "redis://127.0.0.1:1")
          const error = yield* Effect.timeout(Effect.flip(store.read("pool")), 1_000)
          assert.match(error.message, /ECONNREFUSED/)
        }).pipe(Effect.scoped)
      )

      it.live("tries again after it was refused", () =>
        Effect.gen(function* () {
          const store = yield* connect("let in", server.url.replace("//", `//late-${client}:word@`))
          assert.match((yield* Effect.flip(store.read("pool"))).message, /WRONGPASS/)
          yield* commands("ACL", "SETUSER", `late-${client}`, "on", ">word", "~*", "+@all")
          assert.isUndefined(yield* store.read("pool"))
        }).pipe(Effect.scoped)
      )

      it.live("leaves no connection open to a server that accepts and says nothing", () =>
        Effect.gen(function* () {
          const open = new Set<Socket>()
          let accepted = 0
          const silent = createServer((socket) => {
            accepted++
            open.add(socket)
            socket.on("error", () => {}).on("close", () => open.delete(socket))
            socket.resume()
          }).listen(0, "127.0.0.1")
          yield* Effect.addFinalizer(() => Effect.sync(() => silent.close()))
          yield* Effect.promise(() => once(silent, "listening"))
          const url = `redis://127.0.0.1:${(silent.address() as AddressInfo).port}`
          yield* Effect.scoped(
            Effect.gen(function* () {
              const store = yield* connect("silent", url)
              for (let n = 0; n < 2; n++) yield* Effect.timeoutOption(store.read("pool"), 200)
            })
          )
          yield* Effect.promise(() => Redis.until(() => Promise.resolve(open.size === 0)))
          assert.isAtLeast(accepted, 1)
        }).pipe(Effect.scoped)
      )

      it.live("leaves no connection open if it is closed at any moment while it opens", () =>
        Effect.gen(function* () {
          const silent = createServer((socket) => socket.on("error", () => {}).resume()).listen(0, "127.0.0.1")
          yield* Effect.addFinalizer(() => Effect.sync(() => silent.close()))
          yield* Effect.promise(() => once(silent, "listening"))
          const url = `redis://127.0.0.1:${(silent.address() as AddressInfo).port}`
          const connections = () =>
            new Promise<number>((resolve) => silent.getConnections((_, count) => resolve(count)))
          let opening = 0
          for (let turns = 0; turns < 40; turns++) {
            const end = new AbortController()
            opening++
            const settle = () => opening--
            void Clients.opens[client](url, end.signal).then(settle, settle)
            for (let turn = 0; turn < turns; turn++) yield* Effect.promise(() => Promise.resolve())
            end.abort()
          }
          yield* Effect.promise(() => Redis.until(async () => opening === 0 && (await connections()) === 0))
        }).pipe(Effect.scoped)
      )

      it.live("uses the name, the password and the number of the database in the address", () =>
        Effect.gen(function* () {
          const word = "p@ss:w/rd%"
          // All that a user must be allowed.
          const rights = [
            "~with*",
            "+hmget",
            "+hget",
            "+hset",
            "+pexpire",
            "+time",
            "+evalsha",
            "+eval",
            "+info",
            "+select"
          ]
          yield* commands("ACL", "SETUSER", "gate", "reset", "on", `>${word}`, ...rights, "+client")
          const url = `${server.url.replace("//", `//gate:${encodeURIComponent(word)}@`)}/3`
          const store = yield* connect("with", url)
          assert.deepInclude(yield* store.swap("pool", undefined, first, hour), first)
          assert.strictEqual(yield* commands("EXISTS", placeOf("with", "pool")), 0)
          const elsewhere = yield* Clients.store(client, `${server.url}/3`, `with by ${client}`)
          assert.deepInclude(yield* elsewhere.read("pool"), first)
        }).pipe(Effect.scoped)
      )
    })
  }

  for (const binary of Redis.binaries.slice(1)) {
    describe(`in ${binary}`, () => {
      let other: Redis.Server
      beforeAll(async () => {
        other = await Redis.start({ binary })
      })
      afterAll(() => other.stop())

      for (const check of StoreContract.checks) {
        it.live(check.name, () => Effect.suspend(() => check.run(Clients.store("redis", other.url, "contract"))))
      }
    })
  }

  it.live("is the same over a Redis service of Effect", () =>
    Effect.gen(function* () {
      const sharing = yield* Layer.build(
        FloodgateRedis.layerStore({ prefix: "service" }).pipe(Layer.provide(NodeRedis.layer({ url: server.url })))
      )
      const { read, swap } = Context.get(sharing, BudgetStore)!
      for (const check of StoreContract.checks) {
        // The connection belongs to the service, so its processes are one.
        yield* check.run(Effect.succeed({ read, swap }))
      }
    }).pipe(Effect.scoped)
  )

  it.live("treats a star in a prefix as text, not as a pattern", () =>
    Effect.gen(function* () {
      const layers = ["star", "star*", "stars"].map((prefix) =>
        FloodgateRedis.layerStoreUrl({ url: server.url, prefix })
      )
      for (const [n, layer] of layers.entries()) {
        const { swap } = Context.get(yield* Layer.build(layer), BudgetStore)!
        yield* swap(`pool${n}`, undefined, first, hour)
      }
      const keys = (yield* commands("KEYS", "star*")) as ReadonlyArray<string>
      assert.deepStrictEqual([...keys].sort(), ["star%2A:pool1", "star:pool0", "stars:pool2"])
    }).pipe(Effect.scoped)
  )

  it.live("answers like the Lua of the simulated tests, for any order of commands", () =>
    Effect.gen(function* () {
      const lua = yield* Effect.promise(LuaRedis.make)
      lua.now = Date.now
      const next = mulberry(7)
      const pick = <A>(items: ReadonlyArray<A>): A => items[Math.floor(next() * items.length)]!
      const replies = new Set<string>()
      const ask = async (send: (words: ReadonlyArray<string>) => unknown, words: ReadonlyArray<string>) => {
        try {
          const reply = await send(words)
          // Each has a clock of its own, so ages and times need only be about right.
          const checked = (time: number): string => {
            assert.isTrue(Math.abs(Date.now() - time) < 5_000, String(time))
            return "time"
          }
          if (typeof reply === "number" && reply > 1) return checked(reply)
          if (!Array.isArray(reply)) return reply
          assert.isTrue(Math.abs(reply[2]) < 5_000, String(reply[2]))
          return [...reply.slice(0, 2), checked(reply[3])]
        } catch (error) {
          return String((error as Error).message).split(" ")[0]
        }
      }
      const sha = yield* commands("SCRIPT", "LOAD", script)
      yield* commands("SCRIPT", "FLUSH")
      for (let step = 0; step < sized(500, 1_500); step++) {
        const key = `parity:${pick(["a", "b", "c"])}`
        const swap = ["1", key, pick(["", "1", "2", "3"]), pick(["1", "2", "3"]), pick(["", "x", "ä€🜁"]), "60000"]
        const words = pick([
          ["EVALSHA", String(sha), "1", key],
          ["EVALSHA", String(sha), ...swap],
          ["EVALSHA", String(sha), ...swap],
          ["DEL", key],
          ...(step > 50 && next() < 0.5 ? [["EVAL", script, ...swap]] : [])
        ])
        const expected = yield* Effect.promise(() => ask((each) => server.command(...each), words))
        const seen = yield* Effect.promise(() => ask(lua.send, words))
        assert.deepStrictEqual(seen, expected, `step ${step}: ${words.join(" ")}`)
        replies.add(JSON.stringify(seen))
      }
      // The history has come to every kind of reply.
      for (const reply of ['"NOSCRIPT"', '"time"', '[null,null,"time"]', '["1","","time"]', "0", "1"])
        assert.isTrue(replies.has(reply), reply)
    })
  )

  it("uses the package that is installed, and says what to install if there is none", () => {
    const run = (...without: ReadonlyArray<string>) =>
      execFileSync(
        process.execPath,
        ["--conditions=@floodgate/source", join(import.meta.dirname, "withoutPackages.ts"), server.url, ...without],
        { encoding: "utf8" }
      ).trim()
    assert.match(run("ioredis"), /^node-redis/)
    assert.match(run("redis"), /^ioredis/)
    assert.match(run("redis", "ioredis"), /no client is installed: npm install redis, or npm install ioredis/)
  })
})

if (Redis.skipped !== undefined) console.warn(`SKIPPED: the tests of the store in Redis, because ${Redis.skipped}`)
