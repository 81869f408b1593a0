import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { type ApiExport, type ApiModule, apiModules, rankOf, stabilities, tagOf } from "../scripts/api.ts"
import { headerOf, packageFiles, parse, root, sourceFiles } from "./support/modules.ts"

const isWrong = (tag: string, value: string | undefined): boolean =>
  value === undefined || (tag === "stability" && !stabilities.includes(value))

const lacking = (doc: string, tags: ReadonlyArray<string>): ReadonlyArray<string> =>
  doc === ""
    ? ["a docstring"]
    : tags
        .filter((tag) => isWrong(tag, tagOf(doc, tag)))
        .map((tag) => `a valid @${tag}${tag === "stability" ? ` (${stabilities.join(", ")})` : ""}`)

const problemsOf = (one: ApiExport): ReadonlyArray<string> => {
  if (one.namespace !== undefined) return lacking(one.doc, ["since"])
  const lacks = lacking(one.doc, ["stability", "category", "since"])
  return [...lacks, ...(lacks.length > 0 || rankOf(one) >= 0 ? [] : ["a @category that scripts/api.ts knows"])]
}

const textOf = (file: string, name: string, lacks: ReadonlyArray<string>): ReadonlyArray<string> =>
  lacks.length === 0 ? [] : [`${file}: ${name} lacks ${lacks.join(" and ")}`]

const problemsIn = ({ doc, exports, file, name }: ApiModule): ReadonlyArray<string> => [
  ...textOf(file, `the module ${name}`, lacking(doc, ["stability", "since"])),
  ...exports.flatMap((one) => textOf(one.nodes[0]!.getSourceFile().fileName, one.name, problemsOf(one)))
]

describe("docstrings", () => {
  it("describe every public module and every export, with @stability, @category and @since", () => {
    assert.deepStrictEqual(lacking(headerOf(parse("src/index.ts")), ["stability", "since"]), [])
    assert.deepStrictEqual([...new Set(apiModules().flatMap(problemsIn))], [])
  })

  it("begin with a noun or a verb, and not with What", () => {
    const found = [...sourceFiles(), ...packageFiles()].flatMap((file) =>
      Array.from(
        readFileSync(join(root, file), "utf8").matchAll(/\/\*\*[\s*]+(What\b.*)/g),
        ([, doc]) => `${file}: ${doc}`
      )
    )
    assert.deepStrictEqual(found, [])
  })
})
