$giltCode = 0
try {
    $giltRequest = Read-GiltRequest
    $giltResult = Invoke-GiltVerb $giltRequest
    Write-GiltAnswer @{ ok = $true; result = $giltResult }
} catch {
    Write-GiltAnswer (Get-GiltFailure $_)
    $giltCode = 1
}
if ($giltHere -like 'C:\ProgramData\gilt\run\*') { Remove-Item -LiteralPath $giltHere -Recurse -Force -ErrorAction SilentlyContinue }
exit $giltCode
