import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { StoreError, type Store, type Stored } from "floodgate/BudgetStore"
import { StoreContract } from "floodgate/testing"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Sqlite from "../../examples/sqlite-store.ts"
import * as LuaRedis from "../sharing/luaRedis.ts"
import { sized } from "../support/size.ts"

type Connect = Parameters<(typeof StoreContract.checks)[number]["run"]>[0]

// A store answers in real time, so the checks do not run under a `TestClock`.
const keepsTheContract = (connect: () => Connect): void => {
  for (const { name, run } of StoreContract.checks) {
    it.live(name, () => Effect.suspend(() => run(connect())))
  }
}

interface Entry extends Stored {
  readonly expires: number
}

/** A store in memory. A mutant replaces a part of it. */
const memory = (mutate: (store: Store, values: Map<string, Entry>) => Partial<Store> = () => ({})) => {
  const values = new Map<string, Entry>()
  const seen = (key: string): Stored | undefined => {
    const { expires = 0, ...stored } = values.get(key) ?? {}
    return expires > Date.now() ? (stored as Stored) : undefined
  }
  const store: Store = {
    read: (key) => Effect.sync(() => seen(key)),
    swap: (key, expected, next, keepMillis) =>
      Effect.sync(() => {
        if (seen(key)?.version === expected) values.set(key, { ...next, expires: Date.now() + keepMillis })
        return seen(key)
      })
  }
  return Effect.sync((): Store => ({ ...store, ...mutate(store, values) }))
}

describe("a store in memory", () => {
  const connect = memory()
  keepsTheContract(() => connect)
})

describe("the client of Redis, on its script in Lua", () => {
  let redis: LuaRedis.LuaRedis
  beforeAll(async () => {
    redis = await LuaRedis.make()
    redis.now = Date.now
  })
  keepsTheContract(() => Effect.succeed(LuaRedis.store("contract", redis)))
})

describe("examples/sqlite-store.ts", () => {
  const withFile = Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "floodgate-store-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  ).pipe(Effect.map((folder) => join(folder, "budgets.sqlite")))

  for (const { name, run } of StoreContract.checks) {
    it.live(name, () => Effect.scoped(Effect.flatMap(withFile, (file) => run(Sqlite.make(file)))))
  }

  it.live("loses no update of processes that share a file, even if one is killed again and again", () =>
    Effect.gen(function* () {
      const file = yield* withFile
      const each = 200
      const count = sized(2, 3)
      const start = (most: number) =>
        spawn(
          process.execPath,
          ["--conditions=@floodgate/source", "--no-warnings", join(import.meta.dirname, "counter.ts"), file, `${most}`],
          { stdio: ["ignore", "pipe", "inherit"] }
        )
      yield* Effect.promise(async () => {
        const counters = Array.from({ length: count }, () => start(each))
        const ends = counters.map((child) => once(child, "close"))
        for (let n = 0; n < count; n++) {
          const victim = start(Infinity)
          // It says a word when it has begun to count.
          await once(victim.stdout, "data")
          const gone = once(victim, "close")
          victim.kill("SIGKILL")
          await gone
        }
        for (const end of ends) assert.deepStrictEqual(await end, [0, null])
      })
      const stored = yield* Effect.flatMap(Sqlite.make(file), (store) => store.read("count"))
      const counts = JSON.parse(stored!.value) as Record<string, number>
      // Each process has its own count, and every process that was not killed has completed it.
      const values = Object.values(counts)
      assert.lengthOf(
        values.filter((value) => value === each),
        count
      )
    }).pipe(Effect.scoped)
  )
})

describe("a store that is broken", () => {
  const leaving = new Map<string, Stored>()
  /** What a store might get wrong, each mutant one thing. */
  const mutants: Readonly<Record<string, Connect>> = {
    "answers with an empty value where there is none": memory((store) => ({
      read: (key) => Effect.map(store.read(key), (stored) => stored ?? { version: "", value: "" })
    })),
    "keeps nothing": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        Effect.map(store.read(key), (stored) => (stored?.version === expected ? next : stored)).pipe(
          Effect.filterOrElse(
            () => keepMillis < 0,
            (stored) => Effect.succeed(stored)
          )
        )
    })),
    "replaces nothing that is there": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        expected === undefined ? store.swap(key, expected, next, keepMillis) : store.read(key)
    })),
    "replaces whatever is there": memory((store) => ({
      swap: (key, _, next, keepMillis) =>
        Effect.flatMap(store.read(key), (stored) => store.swap(key, stored?.version, next, keepMillis))
    })),
    "takes nothing expected for anything expected": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        expected === undefined
          ? Effect.flatMap(store.read(key), (stored) => store.swap(key, stored?.version, next, keepMillis))
          : store.swap(key, expected, next, keepMillis)
    })),
    "stores over nothing, whatever was expected": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        Effect.flatMap(store.read(key), (stored) =>
          store.swap(key, stored === undefined ? undefined : expected, next, keepMillis)
        )
    })),
    "compares versions without their case": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        Effect.flatMap(store.read(key), (stored) =>
          store.swap(
            key,
            stored?.version.toLowerCase() === expected?.toLowerCase() ? stored?.version : expected,
            next,
            keepMillis
          )
        )
    })),
    "says that it has stored what it has not": memory((store) => ({
      swap: (...swap) => Effect.as(store.swap(...swap), swap[2])
    })),
    "says what was there before": memory((store) => ({
      swap: (...swap) => Effect.flatMap(store.read(swap[0]), (before) => Effect.as(store.swap(...swap), before))
    })),
    "reads, and writes a moment later": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        Effect.gen(function* () {
          const stored = yield* store.read(key)
          if (stored?.version !== expected) return stored
          yield* Effect.sleep(1)
          const now = yield* store.read(key)
          return yield* store.swap(key, now?.version, next, keepMillis)
        })
    })),
    "remembers what it has read": memory((store) => {
      const known = new Map<string, Stored | undefined>()
      return {
        read: (key) =>
          known.has(key)
            ? Effect.sync(() => known.get(key))
            : Effect.tap(store.read(key), (stored) => Effect.sync(() => known.set(key, stored))),
        swap: (...swap) => Effect.tap(store.swap(...swap), (stored) => Effect.sync(() => known.set(swap[0], stored)))
      }
    }),
    "writes for others to see some time later": memory((store) => ({
      read: (key) => Effect.delay(store.read(key), 0),
      swap: (...swap) => Effect.as(Effect.forkDetach(Effect.delay(store.swap(...swap), 3)), swap[2])
    })),
    "has values of its own in each process": Effect.suspend(() => memory()),
    "writes the version first and the value after it": memory((store, values) => ({
      swap: (key, expected, next, keepMillis) =>
        Effect.gen(function* () {
          const before = values.get(key)
          const early = { version: next.version, value: before?.value ?? "" }
          const now = yield* store.swap(key, expected, early, keepMillis)
          if (now?.version !== next.version) return now
          yield* Effect.yieldNow
          values.set(key, { ...values.get(key)!, value: next.value })
          return next
        })
    })),
    "trims values": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        store.swap(key, expected, { ...next, value: next.value.trim() }, keepMillis)
    })),
    "cuts values at 64,000 bytes": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        store.swap(
          key,
          expected,
          { ...next, value: Buffer.from(next.value).subarray(0, 64_000).toString() },
          keepMillis
        )
    })),
    "knows Latin only": memory((store) => ({
      swap: (key, expected, next, keepMillis) =>
        store.swap(key, expected, { ...next, value: Buffer.from(next.value, "latin1").toString("latin1") }, keepMillis)
    })),
    ...Object.fromEntries(
      Object.entries({
        "takes keys without their case": (key: string) => key.toLowerCase(),
        "takes keys for paths": (key: string) => join("/", key),
        "takes 64 characters of a key": (key: string) => key.slice(0, 64),
        "trims keys": (key: string) => key.trim()
      }).map(([name, of]) => [
        name,
        memory((store) => ({
          read: (key) => store.read(of(key)),
          swap: (key, ...swap) => store.swap(of(key), ...swap)
        }))
      ])
    ),
    "does not keep its values longer where they are replaced": memory((_, values) => ({
      swap: (key, expected, next, keepMillis) =>
        Effect.sync(() => {
          const before = values.get(key)
          if (before?.version === expected) {
            values.set(key, { ...next, expires: before?.expires ?? Date.now() + keepMillis })
          }
          return values.get(key)
        })
    })),
    "counts with 32 bits": memory((store) => ({
      swap: (key, expected, next, keepMillis) => store.swap(key, expected, next, keepMillis | 0)
    })),
    "tells ages in seconds": memory((store) => {
      const since = new Map<string, number>()
      const aged = (key: string, stored: Stored | undefined): Stored | undefined =>
        stored && { ...stored, ageMillis: (Date.now() - (since.get(key) ?? 0)) / 1_000 }
      return {
        read: (key) => Effect.map(store.read(key), (stored) => aged(key, stored)),
        swap: (...swap) => {
          since.set(swap[0], Date.now())
          return store.swap(...swap)
        }
      }
    }),
    "tells ages since the first swap": memory((store) => {
      const since = new Map<string, number>()
      const aged = (key: string, stored: Stored | undefined): Stored | undefined =>
        stored && { ...stored, ageMillis: Date.now() - (since.get(key) ?? 0) }
      return {
        read: (key) => Effect.map(store.read(key), (stored) => aged(key, stored)),
        swap: (...swap) => {
          if (!since.has(swap[0])) since.set(swap[0], Date.now())
          return Effect.map(store.swap(...swap), (stored) => aged(swap[0], stored))
        }
      }
    }),
    "tells the time only where it reads": memory((store) => ({
      read: (key) => Effect.map(store.read(key), (stored) => stored && { ...stored, utc: Date.now() })
    })),
    "tells a time that goes back": memory((store) => ({
      read: (key) => Effect.map(store.read(key), (stored) => stored && { ...stored, utc: Date.now() - 60_000 }),
      swap: (...swap) => Effect.map(store.swap(...swap), (stored) => stored && { ...stored, utc: Date.now() })
    })),
    "forgets the values of a process that ends": Effect.gen(function* () {
      const keys = new Set<string>()
      yield* Effect.addFinalizer(() => Effect.sync(() => keys.forEach((key) => leaving.delete(key))))
      return {
        read: (key) => Effect.sync(() => leaving.get(key)),
        swap: (key, expected, next) =>
          Effect.sync(() => {
            keys.add(key)
            if (leaving.get(key)?.version === expected) leaving.set(key, next)
            return leaving.get(key)
          })
      }
    }),
    "writes in parts, and stays there where it is interrupted": memory((store, values) => ({
      swap: (key, expected, next, keepMillis) =>
        Effect.gen(function* () {
          const before = yield* store.read(key)
          if (before?.version !== expected) return before
          values.set(key, { ...next, value: next.value.slice(0, 10), expires: Date.now() + keepMillis })
          yield* Effect.yieldNow
          values.set(key, { ...next, expires: Date.now() + keepMillis })
          return next
        })
    })),
    "stays locked where it is interrupted": memory((store) => {
      const lock = { isTaken: false }
      return {
        swap: (...swap) =>
          Effect.gen(function* () {
            for (let turn = 0; lock.isTaken; turn++) {
              if (turn > 100) return yield* new StoreError({ cause: new Error("locked") })
              yield* Effect.sleep(1)
            }
            lock.isTaken = true
            yield* Effect.yieldNow
            const stored = yield* store.swap(...swap)
            lock.isTaken = false
            return stored
          })
      }
    })
  }
  /** The checks that each mutant fails. All run at once, because most of their time is waiting. */
  const broken = new Map<string, ReadonlyArray<string>>()
  beforeAll(async () => {
    const failedBy = (connect: Connect) =>
      Effect.filter(
        StoreContract.checks,
        (check) => Effect.match(check.run(connect), { onFailure: () => true, onSuccess: () => false }),
        { concurrency: "unbounded" }
      )
    const all = Effect.forEach(
      Object.entries(mutants),
      ([name, connect]) =>
        Effect.map(failedBy(connect), (failed) =>
          broken.set(
            name,
            failed.map((check) => check.name)
          )
        ),
      { concurrency: "unbounded" }
    )
    await Effect.runPromise(all)
  }, 60_000)

  it.each(Object.keys(mutants))("breaks the contract: one that %s", (name) => {
    assert.isAtLeast(broken.get(name)!.length, 1)
  })

  it("fails each check in at least one of its variants", () => {
    const failed = new Set([...broken.values()].flat())
    assert.deepStrictEqual(
      StoreContract.checks.map(({ name }) => name).filter((name) => !failed.has(name)),
      []
    )
  })
})
