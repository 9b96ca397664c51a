function Invoke-GiltVerb($request) {
    $script:giltStep = 'clock'
    Set-Date -Date ([DateTime]::Parse($request.clock, [Globalization.CultureInfo]::InvariantCulture)) | Out-Null
    if ($request.password) {
        $script:giltStep = 'password'
        $secret = ConvertTo-SecureString -String $request.password -AsPlainText -Force
        Set-LocalUser -Name $request.user -Password $secret
    }
    if ($request.publicKey) {
        $script:giltStep = 'key'
        $path = Join-Path $env:ProgramData 'ssh\administrators_authorized_keys'
        $kept = @(Get-Content -LiteralPath $path -ErrorAction SilentlyContinue | Where-Object {
            $_ -and -not ($request.oldKey -and $_.Contains($request.oldKey))
        })
        Set-GiltKeyFile $path ([string[]]($kept + @([string]$request.publicKey)))
    }
    @{}
}
