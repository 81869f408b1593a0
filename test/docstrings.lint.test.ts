import { assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import ts from "typescript6"
import { docBefore, headerOf, isExported, namesOf, parse, publicModules } from "./support/modules.ts"

/** The public modules and what they pass on, each with the names that are: all of them where it does not say. */
const documented = (): Map<string, Set<string> | undefined> => {
  const files = new Map<string, Set<string> | undefined>()
  const add = (file: string, names?: ReadonlyArray<string>): void => {
    const known = files.get(file)
    if (files.has(file) && known === undefined) return
    files.set(file, names === undefined ? undefined : new Set([...(known ?? []), ...names]))
    if (names !== undefined) return
    for (const node of parse(file).statements) {
      if (!ts.isExportDeclaration(node) || node.moduleSpecifier === undefined) continue
      const from = (node.moduleSpecifier as ts.StringLiteral).text
      if (!from.startsWith(".") || /\/(domain)\//.test(from)) continue
      const clause = node.exportClause
      const some = clause !== undefined && ts.isNamedExports(clause)
      add(join(file, "..", from), some ? clause.elements.map(({ name }) => name.getText()) : undefined)
    }
  }
  for (const { file } of publicModules()) add(file)
  return files
}

const entryPoints = new Set(publicModules().map(({ file }) => file))

const problemsOf = ([file, names]: readonly [string, Set<string> | undefined]): Array<string> => {
  const source = parse(file)
  const problems: Array<string> = []
  const complete = new Set<string>()
  const missing = new Map<string, string>()
  const note = (name: string, node: ts.Node, tags: ReadonlyArray<string>): void => {
    const doc = docBefore(source, node.pos)
    const absent = tags.filter((tag) => !new RegExp(`${tag} \\S`).test(doc))
    const line = source.getLineAndCharacterOfPosition(node.getStart()).line + 1
    if (absent.length === 0) complete.add(name)
    else missing.set(name, `${file}:${line}: ${name} lacks ${doc === "" ? "a docstring" : absent.join(" and ")}`)
  }
  for (const node of source.statements) {
    if (ts.isExportDeclaration(node) && node.exportClause !== undefined && ts.isNamespaceExport(node.exportClause)) {
      note(node.exportClause.name.getText(), node, ["@since"])
    } else if (isExported(node)) {
      for (const name of namesOf(node)) {
        if (names === undefined || names.has(name)) note(name, node, ["@category", "@since"])
      }
    }
  }
  if (entryPoints.has(file) && !/@since \d/.test(headerOf(source)))
    problems.push(`${file}:1: the module docstring is missing or lacks @since`)
  // Overloads, and a type beside a value of the same name, need one docstring between them.
  for (const [name, problem] of missing) if (!complete.has(name)) problems.push(problem)
  return problems
}

describe("docstrings", () => {
  it("describe every public module and every export, with @category and @since", () => {
    assert.deepStrictEqual([...documented()].flatMap(problemsOf), [])
  })
})
