import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { spawnSync } from "node:child_process"
import { hostname } from "node:os"
import { join } from "node:path"
import * as Lock from "../../../src/commands/run/lock.ts"

/** The number of a process that has ended. */
const dead = spawnSync(process.execPath, ["--version"]).pid

const folder = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const out = yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })
  return { fs, out, lock: join(out, "run.lock") }
})

const taken = (out: string) =>
  Effect.scoped(Lock.hold(out)).pipe(
    Effect.as(undefined),
    Effect.catchTag("FolderInUse", (error) => Effect.succeed(error.message))
  )

/** Advances time while the effect waits, by a second for each read of the disk. */
const withTime = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const fiber = yield* Effect.forkChild(effect)
    while (fiber.pollUnsafe() === undefined) yield* Effect.andThen(fs.exists("."), TestClock.adjust("1 second"))
    return yield* Fiber.join(fiber)
  })

describe("run.lock", () => {
  it.effect("exists while a run holds it, and is removed afterwards", () =>
    Effect.gen(function* () {
      const { fs, lock, out } = yield* folder
      const scope = yield* Scope.make()
      yield* Scope.provide(Lock.hold(out), scope)
      assert.match(yield* fs.readFileString(lock), new RegExp(`^${process.pid} ${hostname()} \\d+\n$`))
      assert.match(
        (yield* taken(out))!,
        new RegExp(`^another run \\(process ${process.pid}\\) writes to .*delete .*run.lock$`)
      )
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(yield* fs.exists(lock))
      assert.isUndefined(yield* taken(out))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  for (const [what, line] of [
    ["a process that is gone", `${dead} ${hostname()} 0\n`],
    ["a process of our number before us, as in a container", `${process.pid} ${hostname()} -1000000000000\n`],
    ["a process that wrote no host", `${dead}\n`],
    ["a process that crashed before it wrote anything", ""]
  ]) {
    it.effect(`is taken over from ${what}`, () =>
      Effect.gen(function* () {
        const { fs, lock, out } = yield* folder
        yield* fs.writeFileString(lock, line!)
        // A process that died while it took over the lock.
        yield* fs.writeFileString(`${lock}.old`, line!)
        assert.isUndefined(yield* withTime(taken(out)))
        assert.deepStrictEqual(yield* fs.readDirectory(out), [])
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
    )
  }

  it.effect("is not taken over from another machine, whose processes cannot be seen", () =>
    Effect.gen(function* () {
      const { fs, lock, out } = yield* folder
      yield* fs.writeFileString(lock, `${dead} elsewhere 0\n`)
      assert.strictEqual(
        yield* taken(out),
        `another run (process ${dead} on elsewhere) writes to ${out}: wait for its end, or choose another folder. ` +
          `Only that machine can tell whether it still runs; if it does not, delete ${lock}`
      )
      assert.isTrue(yield* fs.exists(lock))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  for (const [what, make] of [
    ["a link to nothing", (fs: FileSystem.FileSystem, lock: string) => fs.symlink("nowhere", lock)],
    ["a folder", (fs: FileSystem.FileSystem, lock: string) => fs.makeDirectory(lock)]
  ] as const) {
    // Regression: a broken link was retried endlessly, and signals had no effect.
    it.effect(`is refused by name if it is ${what}`, () =>
      Effect.gen(function* () {
        const { fs, lock, out } = yield* folder
        yield* make(fs, lock)
        const error = yield* Effect.flip(Effect.scoped(Lock.hold(out)))
        assert.match(error.message, /^cannot write .*run\.lock: it is a (link|folder); choose another --out$/)
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
    )
  }

  for (const line of ["junk", "junk elsewhere junk", "1e400 elsewhere 0", "x".repeat(10_000)]) {
    it.effect(`is taken over, or named, if it contains "${line.slice(0, 20)}"`, () =>
      Effect.gen(function* () {
        const { fs, lock, out } = yield* folder
        yield* fs.writeFileString(lock, line)
        const message = yield* taken(out)
        if (message !== undefined) assert.match(message, /^another run \((its lock names no process|process \d+) on/)
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
    )
  }

  // Nothing moves the clock, so that a run which waited on would never end.
  it.effect("is not waited for by a run that is interrupted", () =>
    Effect.gen(function* () {
      const { fs, lock, out } = yield* folder
      // A lock is empty for the moment in which it is made.
      yield* fs.writeFileString(lock, "")
      const looked = yield* Latch.make()
      const observed: FileSystem.FileSystem = {
        ...fs,
        readFileString: (path, encoding) => Effect.ensuring(fs.readFileString(path, encoding), looked.open)
      }
      const waiting = yield* Effect.forkChild(
        Effect.provideService(Effect.scoped(Lock.hold(out)), FileSystem.FileSystem, observed)
      )
      yield* looked.await
      yield* Fiber.interrupt(waiting)
      assert.deepStrictEqual(yield* fs.readDirectory(out), ["run.lock"])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  // In real time, because a run that finds an empty lock reads it again a moment later.
  it.live("is taken over by one of several runs that find it, however late the others act", () =>
    Effect.gen(function* () {
      const { fs, lock, out } = yield* folder
      yield* fs.writeFileString(lock, `${dead} ${hostname()} 0\n`)
      const late = yield* Latch.make()
      const seen = yield* Latch.make()
      let readers = 0
      const slow: FileSystem.FileSystem = {
        ...fs,
        readFileString: (path, encoding) =>
          Effect.tap(fs.readFileString(path, encoding), () => {
            if (path !== lock || ++readers > 4) return Effect.void
            return Effect.andThen(readers === 4 ? seen.open : Effect.void, late.await)
          })
      }
      const others = yield* Effect.forkChild(
        Effect.forEach([1, 2, 3, 4], () => taken(out), { concurrency: "unbounded" }).pipe(
          Effect.provideService(FileSystem.FileSystem, slow)
        )
      )
      yield* seen.await
      yield* Lock.hold(out)
      const held = yield* fs.readFileString(lock)
      yield* late.open
      for (const message of yield* Fiber.join(others)) {
        assert.include(message, `another run (process ${process.pid}) writes to ${out}`)
      }
      assert.strictEqual(yield* fs.readFileString(lock), held)
      assert.deepStrictEqual(yield* fs.readDirectory(out), ["run.lock"])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
