/**
 * A small replacement for vitest in a process that runs the tests many times: it collects them once, as plain functions.
 * Importing a name that is missing here fails.
 */
export { assert, expect } from "vitest"

/** A collected test. */
export interface Task {
  readonly type: "test"
  readonly file: string
  readonly name: string
  readonly run: (context: object) => unknown
}

export const tasks: Array<Task> = []
let file = ""
let names: ReadonlyArray<string> = []

/** Collects the tests that follow as those of this file. */
export const collect = (path: string): void => {
  file = path
}

type Test = (name: string, ...rest: ReadonlyArray<unknown>) => void

/** The function among the arguments of a test, which options precede or a timeout follows. */
const functionOf = (rest: ReadonlyArray<unknown>): ((...args: ReadonlyArray<unknown>) => unknown) =>
  rest.find((each) => typeof each === "function") as never

const add = (name: string, run: Task["run"]): void => {
  tasks.push({ type: "test", file, name: [...names, name].join(" > "), run })
}

const test: Test = (name, ...rest) => add(name, functionOf(rest))

const nothing: Test = () => {}

export const it = Object.assign(test, {
  each:
    (cases: ReadonlyArray<unknown>): Test =>
    (name, ...rest) => {
      for (const each of cases) {
        const args = Array.isArray(each) ? each : [each]
        add(`${name} ${JSON.stringify(each)}`, () => functionOf(rest)(...args))
      }
    },
  for:
    (cases: ReadonlyArray<unknown>): Test =>
    (name, ...rest) => {
      for (const each of cases) add(`${name} ${JSON.stringify(each)}`, (context) => functionOf(rest)(each, context))
    },
  skip: nothing,
  only: test,
  fails: nothing,
  skipIf: (condition: boolean) => (condition ? nothing : test),
  runIf: (condition: boolean) => (condition ? test : nothing)
})
export { it as test }

export const describe: Test = (name, ...rest) => {
  const outer = names
  names = [...names, name]
  functionOf(rest)()
  names = outer
}

const hook = (): void => {
  throw new Error("a test with hooks cannot be run here")
}
export const beforeAll = hook
export const beforeEach = hook
export const afterAll = hook
export const afterEach = hook
export const TestRunner = { getCurrentSuite: () => ({ tasks }) }
