import { assert, describe, it } from "@effect/vitest"
import { existsSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript6"
import { parse, publicModules, root } from "./support/modules.ts"

const isExported = (node: ts.Statement): boolean =>
  ts.canHaveModifiers(node) &&
  (ts.getModifiers(node) ?? []).some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword)

const docOf = (source: ts.SourceFile, node: ts.Node): string => {
  const comments = ts.getLeadingCommentRanges(source.text, node.pos) ?? []
  const last = comments.at(-1)
  const text = last === undefined ? "" : source.text.slice(last.pos, last.end)
  return text.startsWith("/**") ? text : ""
}

const namesOf = (node: ts.Statement): Array<string> => {
  if (ts.isVariableStatement(node)) {
    return node.declarationList.declarations.map((declaration) => declaration.name.getText())
  }
  const declaration = node as ts.Statement & { readonly name?: ts.Identifier }
  return declaration.name === undefined ? [] : [declaration.name.text]
}

/** The public modules and what they re-export with `export * from`. */
const documented = (): Array<string> => {
  const files = new Set<string>()
  const add = (file: string): void => {
    if (files.has(file) || !existsSync(join(root, file))) return
    files.add(file)
    for (const node of parse(file).statements) {
      if (!ts.isExportDeclaration(node) || node.moduleSpecifier === undefined) continue
      const from = (node.moduleSpecifier as ts.StringLiteral).text
      if (from.startsWith(".") && !from.includes("/internal/")) add(join(file, "..", from))
    }
  }
  for (const { file } of publicModules()) add(file)
  return [...files].sort()
}

const entryPoints = new Set(publicModules().map(({ file }) => file))

const problemsOf = (file: string): Array<string> => {
  const source = parse(file)
  const problems: Array<string> = []
  const complete = new Set<string>()
  const missing = new Map<string, string>()
  const note = (name: string, node: ts.Node, tags: ReadonlyArray<string>): void => {
    const doc = docOf(source, node)
    const absent = tags.filter((tag) => !new RegExp(`${tag} \\S`).test(doc))
    const line = source.getLineAndCharacterOfPosition(node.getStart()).line + 1
    if (absent.length === 0) complete.add(name)
    else missing.set(name, `${file}:${line}: ${name} lacks ${doc === "" ? "a docstring" : absent.join(" and ")}`)
  }
  for (const node of source.statements) {
    if (ts.isExportDeclaration(node) && node.exportClause !== undefined && ts.isNamespaceExport(node.exportClause)) {
      note(node.exportClause.name.getText(), node, ["@since"])
    } else if (isExported(node)) {
      for (const name of namesOf(node)) note(name, node, ["@category", "@since"])
    }
  }
  const header = /^(?:#!.*\n)?\s*\/\*\*[\s\S]*?\*\//.exec(source.text)?.[0] ?? ""
  if (entryPoints.has(file) && !/@since \d/.test(header))
    problems.push(`${file}:1: the module docstring is missing or lacks @since`)
  // Overloads, and a type beside a value of the same name, need one docstring between them.
  for (const [name, problem] of missing) if (!complete.has(name)) problems.push(problem)
  return problems
}

describe("docstrings", () => {
  it("describe every public module and every export, with @category and @since", () => {
    assert.deepStrictEqual(documented().flatMap(problemsOf), [])
  })
})
