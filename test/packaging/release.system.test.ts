import { assert, describe, it } from "@effect/vitest"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { parse } from "yaml"
import { root } from "../support/modules.ts"

// What a release consists of, as far as the files show it. `npm run pack:check` packs and uses it.

const folder = join(root, ".github/workflows")
const workflows = readdirSync(folder).map((file) => [file, readFileSync(join(folder, file), "utf8")] as const)

describe.each(workflows)("%s", (_, text) => {
  it("pins every action to a commit", () => {
    const uses = [...text.matchAll(/uses: (.+)$/gm)].map(([, action]) => action!)
    assert.isAbove(uses.length, 0)
    for (const action of uses)
      assert.match(action, /^(\.\/\.github\/workflows\/[\w-]+\.yml|[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$/)
  })

  it("has no permission that a job does not name, and leaves no credentials behind", () => {
    assert.match(text, /^permissions: \{\}$/m)
    assert.strictEqual(text.split("actions/checkout@").length, text.split("persist-credentials: false").length)
    assert.notMatch(text, /secrets\.|pull_request_target|: write-all/)
  })

  it("puts no text from outside into a script", () => {
    for (const [, script] of text.matchAll(/run: (.*)$/gm)) {
      assert.notMatch(script!, /\$\{\{\s*github\.(event|head_ref|ref_name)/)
    }
  })
})

interface Job {
  readonly needs: string
  readonly steps: ReadonlyArray<{ readonly run: string }>
  readonly strategy?: { readonly matrix: { readonly include: ReadonlyArray<{ readonly platform: string }> } }
}

describe("a release", () => {
  const [, text] = workflows.find(([file]) => file === "release.yml")!

  it("publishes the library first and the command last, with provenance and without a token", () => {
    const published = [...text.matchAll(/run: npm publish (.*)$/gm)].map(([, flags]) => flags!)
    assert.deepStrictEqual(
      published.map((flags) => /--workspace (\S+)/.exec(flags)?.[1] ?? "floodgate"),
      ["floodgate", "@floodgate/gateway", "@floodgate/redis", "@floodgate/lab", "@floodgate/cli"]
    )
    for (const flags of published) assert.match(flags, /--provenance --access public/)
    assert.match(text, /^ {6}id-token: write/m)
    assert.notInclude(text, "NODE_AUTH_TOKEN")
  })

  it("is published with the executables of all platforms, as docs/clients.md lists them, and with their checksums", () => {
    const jobs = (parse(text) as { readonly jobs: Readonly<Record<string, Job>> }).jobs
    const platforms = jobs["executable"]!.strategy!.matrix.include.map(({ platform }) => platform)
    const listed = /one executable for ([^.]*?)\./.exec(readFileSync(join(root, "docs/clients.md"), "utf8"))![1]!
    assert.deepStrictEqual(
      platforms,
      [...listed.matchAll(/`([a-z]+-[a-z0-9]+)`/g)].map(([, name]) => name)
    )
    assert.deepStrictEqual(
      ["draft", "executable", "publish", "release"].map((name) => jobs[name]!.needs),
      ["check", "draft", "executable", "publish"]
    )
    const last = jobs["release"]!.steps.map(({ run }) => run)
    const at = (part: string) => last.findIndex((run) => run.includes(part))
    assert.isTrue(at("SHA256SUMS") >= 0 && at("SHA256SUMS") < at("--draft=false"))
  })
})

describe("the way to install what is not on npm yet", () => {
  const read = (file: string): string => readFileSync(join(root, file), "utf8")

  it("packs all packages, and installs the command from their tarballs", () => {
    const { version } = JSON.parse(read("package.json")) as { readonly version: string }
    const page = read("docs/clients.md").replaceAll(/\s+/g, " ")
    for (const command of [
      "`npm ci && npm run build && npm pack --workspaces`",
      `\`npm i PATH/floodgate-${version}.tgz effect @anthropic-ai/sdk\``,
      `\`npm i PATH/floodgate-*.tgz\``
    ]) {
      assert.include(page, command)
    }
  })
})

describe("package.json", () => {
  interface Manifest {
    readonly dependencies?: Record<string, string>
    readonly optionalDependencies?: Record<string, string>
    readonly peerDependenciesMeta: Record<string, { readonly optional: boolean }>
    readonly exports: Record<string, Record<string, string> | string | null>
    readonly devDependencies: Record<string, string>
    readonly files: ReadonlyArray<string>
    readonly peerDependencies: Record<string, string>
    readonly sideEffects: ReadonlyArray<string>
    readonly scripts: Record<string, string>
    readonly version: string
  }
  const read = (folder: string) => JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8")) as Manifest
  const manifest = read(".")
  const cli = read("packages/cli")

  it("of the library depends on nothing, and asks for effect alone", () => {
    assert.notProperty(manifest, "dependencies")
    const asked = Object.keys(manifest.peerDependencies).filter(
      (name) => manifest.peerDependenciesMeta[name]?.optional !== true
    )
    assert.deepStrictEqual(asked, ["effect"])
  })

  // They use `floodgate/internal`, which may change with any version.
  it("of the other packages has the version of the library, and asks for exactly that", () => {
    const others = ["gateway", "redis", "lab", "cli"].map((name) => read(`packages/${name}`))
    for (const { dependencies, peerDependencies, version } of others) {
      assert.strictEqual(version, manifest.version)
      assert.strictEqual({ ...dependencies, ...peerDependencies }["floodgate"], manifest.version)
    }
    const own = { ...cli.dependencies, ...cli.optionalDependencies }
    for (const name of ["gateway", "redis", "lab"]) assert.strictEqual(own[`@floodgate/${name}`], manifest.version)
  })

  it("hides every folder of sources, and exports the index that it may have", () => {
    const folders = readdirSync(join(root, "src"), { withFileTypes: true }).filter((entry) => entry.isDirectory())
    const exported = JSON.stringify(manifest.exports)
    for (const { name } of folders) {
      assert.strictEqual(manifest.exports[`./${name}/*`], null, name)
      if (existsSync(join(root, "src", name, "index.ts"))) assert.include(exported, `"./src/${name}/index.ts"`)
    }
  })

  it("says that no module has side effects, and ships none of the tests", () => {
    assert.deepStrictEqual(manifest.sideEffects, [])
    assert.isTrue(manifest.files.every((file) => /^(src|dist|docs|examples|skills)\/|^[A-Z]+\.md$/.test(file)))
  })

  it("asks for the SDK from the oldest version that was tried on", () => {
    const [, oldest] = /@([\d.]+)$/.exec(manifest.devDependencies["@anthropic-ai/sdk-oldest"]!)!
    assert.strictEqual(manifest.peerDependencies["@anthropic-ai/sdk"], `>=${oldest} <2`)
  })

  it("runs nothing when it is installed", () => {
    for (const { scripts } of [manifest, cli]) {
      for (const name of ["preinstall", "install", "postinstall", "prepare"]) assert.notProperty(scripts, name)
    }
  })

  it("has a changelog of its version", () => {
    assert.include(readFileSync(join(root, "CHANGELOG.md"), "utf8"), `## ${manifest.version}\n`)
  })
})
