# The built-in administrator, whatever its name: the one account Sysprep runs under and Windows resets.
function Invoke-GiltVerb($request) {
    $script:giltStep = 'administrator'
    $account = Get-LocalUser | Where-Object { $_.SID.Value -like 'S-1-5-21-*-500' }
    if (-not $account) { throw 'there is no built-in administrator' }
    $secret = ConvertTo-SecureString -String $request.password -AsPlainText -Force
    Set-LocalUser -SID $account.SID -Password $secret
    Enable-LocalUser -SID $account.SID
    @{ name = $account.Name }
}
