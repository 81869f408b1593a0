import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { afterEach, beforeEach } from "vitest"
import { addTo, commandOf, type Packed, planFor, Refused } from "../../scripts/addTo.ts"
import { root } from "../support/modules.ts"

// `npm run add` without a registry: a shell script replaces the package manager. Real ones were tried by hand.

let folder = ""
const path = process.env["PATH"]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "floodgate-add-"))
})
afterEach(() => {
  process.env["PATH"] = path
  rmSync(folder, { recursive: true, force: true })
})

const write = (files: Readonly<Record<string, string>>): void => {
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    writeFileSync(join(folder, file), content)
  }
}

/** All files of the project with their contents. */
const project = (): Readonly<Record<string, string>> =>
  Object.fromEntries(
    readdirSync(join(folder, "app"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((file) => [file.slice(join(folder, "app/").length), readFileSync(file, "utf8")])
  )

/** Puts a script into the path as the package manager. */
const manager = (name: string, script: string): void => {
  write({ [`bin/${name}`]: `#!/bin/sh\n${script}\n` })
  chmodSync(join(folder, "bin", name), 0o755)
  process.env["PATH"] = `${join(folder, "bin")}:${path}`
}

const packed = (content = "first"): ReadonlyArray<Packed> => {
  write({ "floodgate.tgz": content })
  return [{ name: "floodgate", version: "0.4.0", tarball: join(folder, "floodgate.tgz") }]
}

const peers = { effect: "^4.1.0" }
const plan = () => planFor(join(folder, "app"), peers)
const add = (content?: string) => addTo(plan(), packed(content), new AbortController().signal)

describe("the package manager", () => {
  const empty = "{}"
  for (const [what, files, expected] of [
    ["npm if nothing says otherwise", {}, "npm"],
    ["the one that wrote the lockfile", { "app/package-lock.json": empty }, "npm"],
    ["the one that wrote the lockfile", { "app/pnpm-lock.yaml": "" }, "pnpm"],
    ["the one that wrote the lockfile", { "app/yarn.lock": "" }, "yarn"],
    ["the one that wrote the lockfile", { "app/bun.lock": "" }, "bun"],
    ["the one that wrote the lockfile", { "app/bun.lockb": "" }, "bun"],
    ["the one that packageManager names", { "app/package.json": '{"packageManager":"yarn@4.18.1"}' }, "yarn"],
    [
      "the one that packageManager names before a lockfile",
      { "app/package.json": '{"packageManager":"pnpm@12.0.0"}', "app/package-lock.json": empty },
      "pnpm"
    ],
    ["that of the workspace around it", { "pnpm-lock.yaml": "" }, "pnpm"],
    ["none from outside of its repository", { "pnpm-lock.yaml": "", "app/.git/HEAD": "" }, "npm"]
  ] as const) {
    it(`is ${what}: ${expected}, ${Object.keys(files).join(", ")}`, () => {
      write({ "app/package.json": empty, ...files })
      const found = plan()
      assert.strictEqual(found.manager, expected)
      const command = commandOf(found, ["floodgate@file:./vendor/f.tgz"])
      assert.strictEqual(command[0], expected)
      assert.deepStrictEqual(command.slice(-2), ["floodgate@file:./vendor/f.tgz", "effect@^4.1.0"])
    })
  }

  it("is not asked to install what the project has", () => {
    write({ "app/package.json": '{"dependencies":{"effect":"4.1.0"}}' })
    assert.deepStrictEqual(plan().peers, [])
  })
})

describe("a folder that cannot take a package", () => {
  const problem = (target: string): string => {
    try {
      planFor(target, peers)
    } catch (error) {
      assert.instanceOf(error, Refused)
      return error.message
    }
    return "none"
  }

  it("is refused with the reason", () => {
    write({ "empty/readme": "", "broken/package.json": "{", "list/package.json": "[]" })
    assert.include(problem(join(folder, "nowhere")), "there is no folder")
    assert.include(problem(join(folder, "nowhere")), "npm init")
    assert.include(problem(join(folder, "empty/readme")), "there is no folder")
    assert.include(problem(join(folder, "empty")), "npm init")
    assert.include(problem(join(folder, "broken")), "not valid JSON")
    assert.include(problem(join(folder, "list")), "does not hold an object")
  })

  it("is one whose effect is certainly of another major version", () => {
    for (const range of ["^3.22.4", "~3.1.0", "3", "3.x", "5.0.0-beta.1"]) {
      write({ "app/package.json": JSON.stringify({ devDependencies: { effect: range } }) })
      assert.include(problem(join(folder, "app")), `effect ${range}`)
      assert.include(problem(join(folder, "app")), "^4.1.0")
    }
    for (const range of [
      "^4.1.0",
      "4.2.0",
      ">=4",
      "latest",
      "workspace:*",
      "catalog:",
      "*",
      "file:../effect-3",
      ">=3 <5",
      "3 || 4",
      "3.0.0 || 4.0.0"
    ]) {
      write({ "app/package.json": JSON.stringify({ dependencies: { effect: range } }) })
      assert.strictEqual(problem(join(folder, "app")), "none", range)
    }
  })

  it("is this clone, and each of its packages", () => {
    assert.include(problem(root), "Floodgate's own clone")
    assert.include(problem(join(root, "packages/cli")), "Floodgate's own clone")
  })
})

const before = {
  "app/package.json": '{ "name": "mine" }\n',
  "app/package-lock.json": '{ "lockfileVersion": 3 }\n',
  "app/vendor/other.tgz": "of somebody else"
}
/** What a package manager changes before it fails. */
const half = `echo changed > package.json; echo changed > package-lock.json; mkdir -p node_modules/floodgate
echo half > node_modules/floodgate/package.json`

describe("an installation", () => {
  it("keeps the tarball in the project, and only the newest", async () => {
    write(before)
    manager("npm", 'echo "$@" > arguments; echo "${npm_config_loglevel:-none}" > level')
    process.env["npm_config_loglevel"] = "silent"
    const first = await add()
    const second = await add("second")
    delete process.env["npm_config_loglevel"]
    const { arguments: args, level, ...files } = project()
    assert.notStrictEqual(first.files[0], second.files[0])
    assert.match(second.files[0]!, /^vendor\/floodgate-0\.4\.0-[0-9a-f]{8}\.tgz$/)
    assert.deepStrictEqual(files, {
      "package-lock.json": before["app/package-lock.json"],
      "package.json": before["app/package.json"],
      [second.files[0]!]: "second",
      "vendor/other.tgz": "of somebody else"
    })
    assert.include(args, `floodgate@file:./${second.files[0]!} effect@^4.1.0`)
    assert.strictEqual(level, "none\n")
    assert.strictEqual(second.undo, `npm uninstall floodgate effect && rm ${second.files[0]!}`)
  })

  it("that fails leaves the project as it was", async () => {
    write(before)
    const files = project()
    manager("npm", `${half}; exit 3`)
    const error = await add().catch((error: unknown) => error)
    assert.instanceOf(error, Refused)
    assert.match(error.message, /^npm install .* failed with code 3$/)
    assert.deepStrictEqual(project(), files)
  })

  it("that is stopped leaves the project as it was", async () => {
    write({ "app/package.json": before["app/package.json"] })
    const files = project()
    manager("npm", `${half}; echo $$ > ../running; exec sleep 600`)
    const stopping = new AbortController()
    const ended = addTo(plan(), packed(), stopping.signal).catch((error: unknown) => error)
    while (!existsSync(join(folder, "running"))) await new Promise((resolve) => setTimeout(resolve, 10))
    stopping.abort()
    assert.instanceOf(await ended, Refused)
    assert.deepStrictEqual(project(), files)
    assert.isFalse(existsSync(join(folder, "app/vendor")))
    assert.isFalse(existsSync(join(folder, "app/node_modules")))
  })

  it("by a package manager that is not installed says so", async () => {
    write({ "app/package.json": '{"packageManager":"pnpm@12.0.0"}' })
    process.env["PATH"] = folder
    const error = await add().catch((error: unknown) => error)
    assert.instanceOf(error, Refused)
    assert.include(error.message, "uses pnpm, which is not installed")
  })
})

describe("npm run add", () => {
  const run = (...args: ReadonlyArray<string>) =>
    spawnSync(process.execPath, [join(root, "scripts/add.ts"), ...args], {
      encoding: "utf8",
      env: { ...process.env, INIT_CWD: folder }
    })

  it("has a help", () => {
    const { status, stdout } = run("--help")
    assert.strictEqual(status, 0)
    for (const word of ["--cli", "--dry-run", "pnpm", "vendor"]) assert.include(stdout, word)
  })

  it("prints what it would do, with paths relative to the user's folder, and does nothing", () => {
    write(before)
    const files = project()
    const { status, stdout } = run("app", "--dry-run", "--cli")
    assert.strictEqual(status, 0)
    assert.match(
      stdout,
      /npm install --no-audit --no-fund floodgate@file:\.\/vendor\/\.\.\.tgz .*@floodgate\/cli@file:/
    )
    assert.deepStrictEqual(project(), files)
  })

  it("ends with code 1 and one line if it cannot add the package", () => {
    write({ "pnpm/package.json": '{"packageManager":"pnpm@12.0.0"}' })
    for (const [args, problem] of [
      [[], "expected one folder"],
      [["nowhere"], "there is no folder"],
      [["pnpm", "--cli"], "--cli works with npm only"],
      [["--clii"], "--clii"]
    ] as const) {
      const { status, stderr, stdout } = run(...args)
      assert.deepStrictEqual([status, stdout], [1, ""])
      assert.include(stderr, problem)
      assert.match(stderr, /^add: /)
    }
  })
})
