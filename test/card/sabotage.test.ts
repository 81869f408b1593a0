/**
 * The user's card is true of the code that runs: TokenBudget stands on a semaphore and a Ref, and the retry policy is
 * `Schedule.exponential` with `Schedule.jittered`. Where one of them is sabotaged, the tests that bear its name fail, and the
 * tests of the other modules pass.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { fork } from "node:child_process"
import { join } from "node:path"
import { sabotages } from "./sabotages.ts"

/** Of each sabotage, what each test says: nothing if it passes. */
let played: Readonly<Record<string, Readonly<Record<string, string | null>>>>

beforeAll(async () => {
  const child = fork(join(import.meta.dirname, "play.ts"), {
    execArgv: ["--conditions=@floodgate/source", "--no-warnings"],
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    timeout: 50_000
  })
  played = await new Promise((resolve, reject) => {
    child.once("message", resolve as (message: unknown) => void)
    child.once("exit", (code, signal) => reject(new Error(`it ends by ${signal ?? code} and says nothing`)))
  })
}, 60_000)

/** The tests that bear a name, and those of the groups that do. */
const named = (name: string) => (test: string) => test.split(" > ").at(-1)!.startsWith(name)
const ofGroup = (name: string) => (test: string) => test.split(" > ")[0]!.includes(name)

/** The tests that fail under a sabotage, or without one. */
const failing = (sabotage: string): ReadonlyArray<string> =>
  Object.entries(played[sabotage]!).flatMap(([test, error]) => (error === null ? [] : [test]))

describe("the card", () => {
  it("holds over Effect as it is", () => assert.deepStrictEqual(failing("nothing"), []))

  for (const { module, name } of sabotages) {
    it(`is noticed to be broken where ${name} is sabotaged`, () => {
      const failed = failing(name)
      const about = Object.keys(played.nothing!).filter(named(name))
      assert.isAtLeast(about.length, 2)
      assert.includeMembers([...failed], about, "a test that bears its name passes")
      const others = failed.filter((test) => !ofGroup(module.replace("effect/", ""))(test))
      assert.deepStrictEqual(others, [], "tests fail that are about something else")
    })
  }
})
