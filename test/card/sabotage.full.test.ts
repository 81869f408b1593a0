/**
 * TokenBudget really uses a semaphore and a Ref, and the retry policy `Schedule.exponential` with `Schedule.jittered`. If one of
 * them is sabotaged, the tests with its name fail, and the tests of the other modules pass.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { fork } from "node:child_process"
import { join } from "node:path"
import { sabotages } from "./sabotages.ts"

/** For each sabotage, the error of each test; null if it passes. */
let played: Readonly<Record<string, Readonly<Record<string, string | null>>>>

beforeAll(async () => {
  const child = fork(join(import.meta.dirname, "play.ts"), {
    execArgv: ["--conditions=@floodgate/source", "--no-warnings"],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    timeout: 50_000
  })
  played = await new Promise((resolve, reject) => {
    child.once("message", resolve as (message: unknown) => void)
    child.once("exit", (code, signal) => reject(new Error(`the child ended by ${signal ?? code} without a result`)))
  })
}, 60_000)

/** Selects tests by the beginning of their name, or by their group. */
const named = (name: string) => (test: string) => test.split(" > ").at(-1)!.startsWith(name)
const ofGroup = (name: string) => (test: string) => test.split(" > ")[0]!.includes(name)

/** The tests that fail under a sabotage. */
const failing = (sabotage: string): ReadonlyArray<string> =>
  Object.entries(played[sabotage]!).flatMap(([test, error]) => (error === null ? [] : [test]))

describe("the card", () => {
  it("holds without a sabotage", () => assert.deepStrictEqual(failing("nothing"), []))

  for (const { module, name } of sabotages) {
    it(`fails in the tests of ${name}, and in no others, if that is sabotaged`, () => {
      const failed = failing(name)
      const about = Object.keys(played.nothing!).filter(named(name))
      assert.isAtLeast(about.length, 2)
      assert.includeMembers([...failed], about, "a test with its name passes")
      const others = failed.filter((test) => !ofGroup(module.replace("effect/", ""))(test))
      assert.deepStrictEqual(others, [], "tests of other modules fail")
    })
  }
})
