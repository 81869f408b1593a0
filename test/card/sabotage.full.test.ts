/**
 * TokenBudget really uses a semaphore and a Ref, the retry policy `Schedule.exponential` with `Schedule.jittered`, and LlmClient that
 * policy. If one of them is sabotaged, the tests fail that `sabotages.ts` names.
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
    timeout: 110_000
  })
  played = await new Promise((resolve, reject) => {
    child.once("message", resolve as (message: unknown) => void)
    child.once("exit", (code, signal) => reject(new Error(`the child ended by ${signal ?? code} without a result`)))
  })
}, 120_000)

/** The tests that fail under a sabotage, by their own names. */
const failing = (sabotage: string): ReadonlyArray<string> =>
  Object.entries(played[sabotage]!).flatMap(([test, error]) => (error === null ? [] : [test.split(" > ").at(-1)!]))

describe("the card", () => {
  it("holds without a sabotage", () => assert.deepStrictEqual(failing("nothing"), []))

  for (const { fails, name, wrong } of sabotages) {
    it(`fails if ${name} ${wrong}`, () => assert.includeMembers([...failing(name)], [...fails], "one of them passes"))
  }
})
