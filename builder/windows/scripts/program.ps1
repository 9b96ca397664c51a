$giltCode = 0
try {
    $giltParameters = ConvertFrom-Json -InputObject ([IO.File]::ReadAllText((Join-Path $giltHere 'parameters.json')))
    $giltResult = Invoke-GiltProgramOf $giltParameters
    Write-GiltAnswer @{ ok = $true; result = $giltResult }
} catch {
    Write-GiltAnswer (Get-GiltFailure $_)
    $giltCode = 1
}
exit $giltCode
